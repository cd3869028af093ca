# SPDX-License-Identifier: Apache-2.0
"""Per-token layers of compressed-tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.quantization.schemes.folders import have, load, values
from vllm_mindspore.quantization.schemes.base import Kind
from vllm_mindspore.quantization.schemes.compressed_dynamic import CompressedDynamic

pytestmark = pytest.mark.usefixtures("mindspore_runtime")


@pytest.fixture
def layer() -> dict[str, torch.Tensor]:
    return {
        "weight": torch.arange(-60, 60, dtype=torch.int8).reshape(6, 20),
        "weight_scale": torch.linspace(0.01, 0.02, 6, dtype=torch.bfloat16)[:, None],
    }


def test_weights_and_scales(tmp_path: Path, layer: dict[str, torch.Tensor]) -> None:
    found = load(tmp_path, CompressedDynamic(), {"q": layer}, dtype=torch.bfloat16)
    assert found.kind is Kind.PER_TOKEN
    assert have(found.weights, [layer["weight"]])
    assert have(found.scales, [layer["weight_scale"].float()[:, 0]])
    assert torch.equal(values(found.input_scale), torch.ones(20))


def test_weights_with_an_offset_are_refused(tmp_path: Path, layer: dict[str, torch.Tensor]) -> None:
    layer["weight_zero_point"] = torch.zeros(6, 1, dtype=torch.int8)
    load(tmp_path, CompressedDynamic(), {"q": layer})
    layer["weight_zero_point"][2] = 1
    with pytest.raises(ValueError, match=r"weight_zero_point: expected zeros .*1 others of 6"):
        load(tmp_path, CompressedDynamic(), {"q": layer})
