# SPDX-License-Identifier: Apache-2.0
"""Floats of compressed folders that float16 cannot hold end the load, in any scheme."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.quantization.test_sparse_plan import HIDDEN, NAMES, QKV, QWEN2, Loaded, made
from vllm_mindspore.quantization.sharding import Rank

pytestmark = pytest.mark.usefixtures("mindspore_runtime")


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("part", "options"), [("weight", {"floats": ("q_proj", "k_proj", "v_proj")}), ("bias", {})]
)
def test_overflow(tmp_path: Path, part: str, options: dict[str, Any], kind: torch.dtype) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        values = tensors[f"{QKV}.{part}"].to(kind)
        values[200] = 1e6
        tensors[f"{QKV}.{part}"] = values

    loaded = Loaded(made(tmp_path, 1, change, **QWEN2, **options), Rank(0, 1))
    loaded.layer(NAMES, HIDDEN, (128, 64, 64), bias=True)
    count = HIDDEN if part == "weight" else 1
    message = rf"_proj.{part}: expected finite numbers in torch.float16, found {count} others"
    with pytest.raises(ValueError, match=message):
        loaded.source.finish()
