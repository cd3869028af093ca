# SPDX-License-Identifier: Apache-2.0
"""FLOAT layers are plain weights and biases, in order; kernels take them without a descriptor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.quantization.schemes.folders import have, load
from vllm_mindspore.quantization.schemes.float_linear import Float

pytestmark = pytest.mark.usefixtures("mindspore_runtime")


@pytest.mark.parametrize("bias", [True, False])
def test_weights_then_biases(tmp_path: Path, bias: bool) -> None:
    layers = {name: {"weight": torch.randn(size, 8)} for name, size in (("q", 4), ("k", 2))}
    for parts in layers.values():
        if bias:
            parts["bias"] = torch.randn(len(parts["weight"]))
    found = load(tmp_path, Float(), layers, bias=bias)
    for given, name in ((found.weights, "weight"), (found.biases, "bias")):
        expected = [parts[name] for parts in layers.values() if name in parts]
        assert have(given, expected)
    assert found.fused() == [*found.weights, *found.biases]
