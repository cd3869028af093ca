# SPDX-License-Identifier: Apache-2.0
"""Quantized layers as the tools store them: their own identities, and the float layer they stand
for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.quantization.ptq.toy_network import ToyNetwork, written
from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.description import WEIGHT_INT4, WEIGHT_INT8, Tool
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


def test_weights_only_as_golden_stick_writes_them() -> None:
    """The tensors of its own files, from the same weights."""
    compared = 0
    for layer in ToyNetwork().layers:
        for name, weight in layer.arrays.items():
            module = name.removesuffix(".weight")
            if not module.endswith("_proj"):
                continue
            for kind, found in (
                ("w8", linears.dynamic(Linear(weight), Tool.GOLDEN_STICK)),
                ("w4", linears.int4(Linear(weight), 64)),
            ):
                for last, values in found.items():
                    expected = written(kind)[f"{module}.{last}"]
                    assert values.dtype == expected.dtype
                    if last == "weight_scale":  # its own is computed in float32
                        np.testing.assert_allclose(values, expected, rtol=2e-7)
                    else:
                        np.testing.assert_array_equal(values, expected)
                    compared += 1
    assert compared == 2 * 7 * 2 * 3


@pytest.mark.parametrize("group_size", [0, 64])
def test_int4_is_within_half_a_step(group_size: int, rng: np.random.Generator) -> None:
    weight = rng.standard_normal((10, 192)).astype(np.float32)
    found = linears.int4(Linear(weight), group_size)
    assert found["weight"].shape == (192, 5)
    assert found["weight_scale"].shape == ((3, 10) if group_size else (10,))
    restored = linears.float_weight(found, WEIGHT_INT4)
    parts = weight.reshape(10, -1, group_size or 192)
    step = 2 * np.abs(parts).max(-1, keepdims=True) / 15
    error = np.abs(restored.reshape(parts.shape) - parts)
    assert (error <= 0.501 * step).all()
    assert error.max() > 0.4 * step.min()


def test_int4_groups_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="50 input channels are no multiple of the group size 64"):
        linears.int4(Linear(np.ones((4, 50), np.float32)), 64)


@each_tool
def test_a_shift_is_added_again_behind(
    tool: Tool, linear: Linear, rng: np.random.Generator
) -> None:
    """Inputs far from zero, in range once they are centred."""
    assert linear.bias is not None
    centre = rng.uniform(-30, 30, 50).astype(np.float32)
    x = centre + rng.uniform(-1, 1, (40, 50)).astype(np.float32)
    scale = activation_scale(-1.0, 1.0, with_zero=True)
    found = linears.static(linear, scale, tool, shift=centre)
    np.testing.assert_array_equal(found["beta"], -centre)
    offset = found["input_offset"].astype(np.float32) - centre / scale.scale
    codes = primitives.quantize(x, found["input_scale"], offset)  # type: ignore[arg-type]
    sums = primitives.accumulate(codes, found["weight"])  # type: ignore[arg-type]
    y = primitives.dequantize(sums, found["deq_scale"], found["quant_bias"])  # type: ignore[arg-type]
    y = y if tool is Tool.MODELSLIM else y + linear.bias
    expected = x @ linear.weight.T + linear.bias
    noise = np.abs((x - centre) @ linear.weight.T).max()
    assert np.abs(y - expected).max() < 0.03 * noise


def test_codes_belong_to_the_scales_that_a_dtype_stores(rng: np.random.Generator) -> None:
    weight = rng.standard_normal((24, 50)).astype(np.float32)
    found = linears.dynamic(Linear(weight, dtype=torch.bfloat16), Tool.GOLDEN_STICK)
    scale = found["weight_scale"]
    np.testing.assert_array_equal(linears.rounded(scale, torch.bfloat16), scale)
    restored = linears.float_weight(found, WEIGHT_INT8)
    # The largest code may be cut by half a unit of the rounding, 2^-9 of 127.
    assert (np.abs(restored - weight) <= 0.76 * scale.astype(np.float32)[:, None]).all()
