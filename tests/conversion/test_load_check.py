# SPDX-License-Identifier: Apache-2.0
"""What no engine would load is not converted either."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conversion.folders import change_rank, random_folder
from vllm_mindspore.conversion.convert import Target, compress, convert

LAYER = "model.layers.0"


@pytest.mark.parametrize("target", Target)
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("self_attn.qkv_proj.deq_scale", lambda v: v[:10].clone(), r"\[128\], found \[10\]"),
        ("self_attn.qkv_proj.deq_scale", lambda v: v * torch.nan, "expected finite numbers"),
        ("self_attn.qkv_proj.deq_scale", lambda v: v[None].clone(), r"\[128\], found \[1, 128\]"),
        ("mlp.down_proj.quant_bias", lambda v: v + 1, "expected zeros on every rank but the first"),
        ("input_layernorm.weight", torch.Tensor.double, "expected dtype .*, found F64"),
        ("extra", lambda _: torch.ones(1), "extra tensor model.layers.0.extra"),
    ],
)
def test_a_rank_that_does_not_load(
    tmp_path: Path,
    name: str,
    change: Callable[[torch.Tensor], torch.Tensor],
    message: str,
    target: Target,
) -> None:
    compress(random_folder(tmp_path / "whole"), tmp_path / "made", 2)
    change_rank(tmp_path / "made", 1, f"{LAYER}.{name}", change)
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "made", tmp_path / "back", target)
    assert {file.name for file in tmp_path.iterdir()} == {"whole", "made"}
