# SPDX-License-Identifier: Apache-2.0
"""Ranges of scales, as they are stored in every dtype."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vllm_mindspore.inspection.checkpoint import Checkpoint, read
from vllm_mindspore.inspection.scales import ranges_of
from vllm_mindspore.quantization import primitives

VALUES = torch.tensor([0.25, 3.0, 0.125])


def checkpoint(folder: Path, **tensors: torch.Tensor) -> Checkpoint:
    save_file({f"a.{name}": tensor for name, tensor in tensors.items()}, folder / "x.safetensors")
    found = read(folder)
    found.problems.clear()  # there is no config.json
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_floats(tmp_path: Path, dtype: torch.dtype) -> None:
    found = ranges_of(checkpoint(tmp_path, weight_scale=VALUES.to(dtype)))
    assert (found["weight_scale"].least, found["weight_scale"].largest) == (0.125, 3.0)
    assert found["weight_scale"].tensors == 1


def test_bits_in_integers(tmp_path: Path) -> None:
    encoded = torch.from_numpy(primitives.encode_deq_scale(VALUES.numpy().astype(np.float32)))
    found = ranges_of(checkpoint(tmp_path, deq_scale=encoded))
    assert (found["deq_scale"].least, found["deq_scale"].largest) == (0.125, 3.0)


def test_only_small_scales_are_read(tmp_path: Path) -> None:
    found = checkpoint(
        tmp_path,
        weight=torch.ones(3),
        weight_scale=torch.ones((1 << 20) + 1),
        input_scale=torch.ones(3, dtype=torch.int8),
        deq_scale=torch.empty(0),
    )
    assert ranges_of(found) == {}
    assert found.problems == []


def test_values_that_are_not_finite_are_problems(tmp_path: Path) -> None:
    found = checkpoint(tmp_path, input_scale=torch.tensor([1.0, torch.nan, torch.inf]))
    assert ranges_of(found)["input_scale"].largest == 1.0
    assert found.problems == [
        "tensor a.input_scale in x.safetensors: expected finite numbers, found 2 NaN or Inf among 3"
    ]


def test_a_file_that_is_gone_meanwhile_is_a_problem(tmp_path: Path) -> None:
    found = checkpoint(tmp_path, input_scale=VALUES)
    (tmp_path / "x.safetensors").unlink()
    assert ranges_of(found) == {}
    assert "x.safetensors does not exist" in found.problems[0]
