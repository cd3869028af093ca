# SPDX-License-Identifier: Apache-2.0
"""W8A8_DYNAMIC as both tools store it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.quantization.schemes.folders import Stored, have, load, stored, values
from vllm_mindspore.quantization.description import Tool
from vllm_mindspore.quantization.ptq import linears
from vllm_mindspore.quantization.ptq.linears import Linear
from vllm_mindspore.quantization.schemes.base import Kind
from vllm_mindspore.quantization.schemes.w8a8_dynamic import W8A8Dynamic

pytestmark = pytest.mark.usefixtures("mindspore_runtime")
INNER = 20


def layer(rng: np.random.Generator, tool: Tool, size: int = 6) -> Stored:
    weight = rng.standard_normal((size, INNER)).astype(np.float32)
    bias = rng.standard_normal(size).astype(np.float32)
    return stored(linears.dynamic(Linear(weight, bias), tool), tool)


@pytest.mark.parametrize("tool", Tool)
def test_both_shapes(tmp_path: Path, tool: Tool, rng: np.random.Generator) -> None:
    parts = layer(rng, tool)
    found = load(tmp_path, W8A8Dynamic(), {"q": parts}, bias=True)
    assert found.kind is Kind.PER_TOKEN
    assert torch.equal(values(found.weights), parts["weight"])
    assert torch.equal(values(found.biases), parts["bias"])
    assert torch.equal(values(found.scales), parts["weight_scale"].reshape(6))
    assert torch.equal(values(found.input_scale), torch.ones(INNER))
    descriptor, *kernels = found.fused()
    assert values(descriptor).tolist() == [2, INNER, 0, 0]
    given = [parts["weight"], parts["bias"], parts["weight_scale"].reshape(6), torch.ones(INNER)]
    assert have(kernels, given)


def test_factors_of_the_input(tmp_path: Path, rng: np.random.Generator) -> None:
    smooth = torch.linspace(0.5, 2, INNER)
    layers = {
        name: layer(rng, Tool.GOLDEN_STICK) | {"smooth_scale": smooth.clone()} for name in "qkv"
    }
    found = load(tmp_path, W8A8Dynamic(), layers, bias=True)
    assert torch.equal(values(found.input_scale), smooth)
    assert len(found.fused()) == 11


def test_factors_must_agree(tmp_path: Path, rng: np.random.Generator) -> None:
    layers = {
        name: layer(rng, Tool.GOLDEN_STICK) | {"smooth_scale": torch.full((INNER,), value)}
        for name, value in (("q", 1.0), ("k", 2.0))
    }
    with pytest.raises(ValueError, match=r"k.smooth_scale: expected the values of q.smooth_scale"):
        load(tmp_path, W8A8Dynamic(), layers, bias=True)


def test_weights_with_an_offset_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    parts = layer(rng, Tool.MODELSLIM)
    parts["weight_offset"] = torch.ones(6, 1)
    with pytest.raises(ValueError, match=r"q.weight_offset: expected zeros.*found 6 others of 6"):
        load(tmp_path, W8A8Dynamic(), {"q": parts}, bias=True)
