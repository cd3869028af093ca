# SPDX-License-Identifier: Apache-2.0
"""What no engine would load is not converted either."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conversion.folders import DESCRIPTIONS, change_rank, random_folder, rank_tensors
from vllm_mindspore.conversion.convert import Target, compress, convert
from vllm_mindspore.device import sparse_weights
from vllm_mindspore.quantization.description import Tool

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


def test_a_flipped_bit_of_a_value(tmp_path: Path) -> None:
    """It makes another valid stream, which the checksum tells from the right one."""
    compress(random_folder(tmp_path / "whole"), tmp_path / "made", 2)
    name = f"{LAYER}.mlp.down_proj"
    index = rank_tensors(tmp_path / "made", 1)[f"{name}.index"].numpy()

    def flip(stream: torch.Tensor) -> torch.Tensor:
        flipped = stream.clone()
        place = int(torch.nonzero(stream[:-64])[-1])
        flipped[place] = 1 if stream[place] != 1 else 2
        sparse_weights.validate(flipped.numpy(), index, 96, 160)
        return flipped

    change_rank(tmp_path / "made", 1, f"{name}.weight", flip)
    with pytest.raises(ValueError, match=r"down_proj.weight in .*: expected CRC-32 \d+, .* found"):
        convert(tmp_path / "made", tmp_path / "back", Target.SPARSE)
    description = tmp_path / "made" / DESCRIPTIONS[Tool.GOLDEN_STICK]
    content = json.loads(description.read_text())
    del content["rank_1"][f"{name}.weight.crc32"]
    description.write_text(json.dumps(content))
    convert(tmp_path / "made", tmp_path / "back", Target.SPARSE)


@pytest.mark.parametrize("value", [-1, 1 << 32, True, "0", 1.0])
def test_what_is_no_checksum(tmp_path: Path, value: object) -> None:
    compress(random_folder(tmp_path / "whole"), tmp_path / "made", 1)
    description = tmp_path / "made" / DESCRIPTIONS[Tool.GOLDEN_STICK]
    content = json.loads(description.read_text())
    content["rank_0"][f"{LAYER}.mlp.down_proj.weight.crc32"] = value
    description.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"down_proj.weight.crc32.: expected a CRC-32, found"):
        convert(tmp_path / "made", tmp_path / "back", Target.SPARSE)
