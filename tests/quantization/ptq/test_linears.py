# SPDX-License-Identifier: Apache-2.0
"""Quantized layers as the tools store them: their own identities, and the float layer they stand
for."""

from __future__ import annotations

import numpy as np
import pytest

from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.description import Tool
from vllm_mindspore.quantization.primitives import ActivationScale, activation_scale
from vllm_mindspore.quantization.ptq import linears
from vllm_mindspore.quantization.ptq.linears import Linear

each_tool = pytest.mark.parametrize("tool", Tool)


@pytest.fixture
def linear(rng: np.random.Generator) -> Linear:
    weight = rng.standard_normal((24, 50)).astype(np.float32)
    return Linear(weight, rng.standard_normal(24).astype(np.float32))


@each_tool
def test_static_stands_for_the_float_layer(
    tool: Tool, linear: Linear, rng: np.random.Generator
) -> None:
    assert linear.bias is not None
    x = rng.standard_normal((40, 50)).astype(np.float32)
    scale = activation_scale(float(x.min()), float(x.max()), with_zero=True)
    found = linears.static(linear, scale, tool)
    codes = primitives.quantize(x, found["input_scale"], found["input_offset"])  # type: ignore[arg-type]
    sums = primitives.accumulate(codes, found["weight"])  # type: ignore[arg-type]
    y = primitives.dequantize(sums, found["deq_scale"], found["quant_bias"])  # type: ignore[arg-type]
    if tool is Tool.GOLDEN_STICK:
        y = y + linear.bias
    expected = x @ linear.weight.T + linear.bias
    error = np.abs(y - expected).max() / np.abs(expected).max()
    assert 1e-4 < error < 0.03


def test_golden_sticks_identities(linear: Linear) -> None:
    found = linears.static(linear, ActivationScale(0.02, -7), Tool.GOLDEN_STICK)
    scale = found["input_scale"]
    np.testing.assert_array_equal(found["deq_scale"], scale[0] * found["weight_scale"])
    sums = found["weight"].astype(np.int64).sum(-1)
    np.testing.assert_array_equal(found["quant_bias"], 7 * sums)
    assert {name: (v.dtype.name, v.shape) for name, v in found.items()} == {
        "weight": ("int8", (24, 50)),
        "deq_scale": ("float32", (24,)),
        "quant_bias": ("int32", (24,)),
        "input_scale": ("float32", (50,)),
        "input_offset": ("int8", (50,)),
        "weight_scale": ("float32", (24,)),
        "weight_offset": ("int32", (24,)),
        "bias": ("float32", (24,)),
    }


def test_modelslims_shapes(linear: Linear) -> None:
    found = linears.static(linear, ActivationScale(0.02, -7), Tool.MODELSLIM)
    assert {name: (v.dtype.name, v.shape) for name, v in found.items()} == {
        "weight": ("int8", (24, 50)),
        "deq_scale": ("float32", (24,)),
        "quant_bias": ("int32", (24,)),
        "input_scale": ("float32", (1,)),
        "input_offset": ("float32", (1,)),
        "weight_scale": ("float32", (24, 1)),
        "weight_offset": ("float32", (24, 1)),
        "bias": ("float32", (24,)),
    }
    assert np.abs(found["weight"].astype(int)).max() == 127  # never -128


@each_tool
def test_dynamic_stands_for_the_float_layer(
    tool: Tool, linear: Linear, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((40, 50)).astype(np.float32)
    found = linears.dynamic(linear, tool)
    assert found["weight_scale"].shape == ((24,) if tool is Tool.GOLDEN_STICK else (24, 1))
    codes, scales = primitives.quantize_per_token(x)
    sums = primitives.accumulate(codes, found["weight"])  # type: ignore[arg-type]
    weight_scale = found["weight_scale"].reshape(-1)
    y = primitives.dequantize_per_token(sums, weight_scale, scales)  # type: ignore[arg-type]
    expected = x @ linear.weight.T
    assert np.abs(y - expected).max() / np.abs(expected).max() < 0.03


@each_tool
def test_a_zero_point_beyond_int8_is_refused(tool: Tool, linear: Linear) -> None:
    with pytest.raises(ValueError, match=r"zero point 300 exceeds int8.*widen"):
        linears.static(linear, ActivationScale(0.02, 300), tool)
