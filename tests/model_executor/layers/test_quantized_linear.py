# SPDX-License-Identifier: Apache-2.0
"""int8 projections in builtin primitives equal the arithmetic of the primitives module, with input
scales and offsets in the model's dtype."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.model_executor.layers.weights import tensor, varying
from tests.quantization.schemes.folders import Stored, load, stored
from vllm_mindspore.bridge import to_torch
from vllm_mindspore.device.custom_ops import custom_op
from vllm_mindspore.model_executor.layers.quantized_linear import QuantizedLinear
from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.description import Tool
from vllm_mindspore.quantization.primitives import ActivationScale
from vllm_mindspore.quantization.ptq import linears
from vllm_mindspore.quantization.ptq.linears import Linear, Tensors
from vllm_mindspore.quantization.schemes.base import Scheme
from vllm_mindspore.quantization.schemes.w8a8 import W8A8
from vllm_mindspore.quantization.schemes.w8a8_dynamic import W8A8Dynamic

INNER, SIZES = 40, {"q": 6, "k": 2}
SCALE = ActivationScale(0.03125, 5)  # a number of every dtype
each_half = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def floats(size: int) -> Linear:
    rng = np.random.default_rng(size)
    weight = rng.standard_normal((size, INNER)).astype(np.float32)
    return Linear(weight, rng.standard_normal(size).astype(np.float32))


def run(folder: Path, scheme: Scheme, files: dict[str, Stored], x: torch.Tensor) -> torch.Tensor:
    cell = QuantizedLinear(load(folder, scheme, files, bias=True, dtype=x.dtype), x.dtype)
    cell.set_inputs(varying(x))
    return to_torch(cell(tensor(x)))


def with_bias(
    values: list[np.ndarray], files: dict[str, Stored], like: torch.Tensor
) -> torch.Tensor:
    """Rounded, then the biases added and rounded again."""
    bias = torch.cat([parts["bias"] for parts in files.values()])
    return torch.from_numpy(np.concatenate(values, 1)).to(like.dtype) + bias


@each_half
def test_per_token(tmp_path: Path, dtype: torch.dtype) -> None:
    layers: dict[str, Tensors] = {
        name: linears.dynamic(floats(size), Tool.MODELSLIM) for name, size in SIZES.items()
    }
    files = {name: stored(parts, Tool.MODELSLIM, dtype) for name, parts in layers.items()}
    x = torch.randn(3, INNER).to(dtype)
    codes, scales = primitives.quantize_per_token(x.float().numpy())
    expected = [
        primitives.dequantize_per_token(
            primitives.accumulate(codes, parts["weight"].numpy()),
            parts["weight_scale"].numpy().reshape(-1),
            scales,
        )
        for parts in files.values()
    ]
    found = run(tmp_path, W8A8Dynamic(), files, x)
    assert torch.equal(found, with_bias(expected, files, x))


@each_half
@pytest.mark.parametrize("reciprocal", [False, True])
def test_static(tmp_path: Path, dtype: torch.dtype, reciprocal: bool) -> None:
    tool = Tool.GOLDEN_STICK
    files = {
        name: stored(linears.static(floats(size), SCALE, tool), tool, dtype)
        for name, size in SIZES.items()
    }
    if reciprocal:
        for parts in files.values():
            parts["input_scale"] = torch.tensor([1 / SCALE.scale]).to(dtype)
            parts["input_offset"] = torch.tensor([float(SCALE.offset)]).to(dtype)
    x = torch.randn(3, INNER).to(dtype)
    codes = primitives.quantize(x.float().numpy(), np.float32(SCALE.scale), SCALE.offset)
    expected = [
        primitives.dequantize(
            primitives.accumulate(codes, parts["weight"].numpy()),
            parts["deq_scale"].numpy(),
            parts["quant_bias"].numpy(),
        )
        for parts in files.values()
    ]
    found = run(tmp_path, W8A8(tool), files, x)
    assert torch.equal(found, with_bias(expected, files, x))


def shifted(dtype: torch.dtype) -> dict[str, Stored]:
    """Layers with beta (Outlier Suppression+)."""
    tool = Tool.MODELSLIM
    files = {
        name: stored(linears.static(floats(size), SCALE, tool), tool, dtype)
        for name, size in SIZES.items()
    }
    for parts in files.values():
        parts["beta"] = (torch.arange(INNER) / 16 - 1).to(dtype)
    return files


@each_half
def test_beta_is_added_to_the_input(tmp_path: Path, dtype: torch.dtype) -> None:
    files = shifted(dtype)
    x = torch.randn(3, INNER).to(dtype)
    moved = (x + files["q"]["beta"]).float().numpy()  # in the model's dtype
    codes = primitives.quantize(moved, np.float32(SCALE.scale), SCALE.offset)
    expected = [
        primitives.dequantize(
            primitives.accumulate(codes, parts["weight"].numpy()),
            parts["deq_scale"].numpy(),
            parts["quant_bias"].numpy(),
        )
        for parts in files.values()
    ]
    found = run(tmp_path, W8A8(Tool.MODELSLIM), files, x)
    assert torch.equal(found, torch.from_numpy(np.concatenate(expected, 1)).to(dtype))


@each_half
def test_beta_equals_the_fused_kernel(tmp_path: Path, dtype: torch.dtype) -> None:
    """Where x + beta is a number of the model's dtype; the kernel adds beta / scale to offsets."""
    x = torch.randint(-64, 64, (5, INNER)).to(dtype) / 32
    scheme = W8A8(Tool.MODELSLIM)
    found = load(tmp_path, scheme, shifted(dtype), bias=True, dtype=dtype)
    assert found.beta is not None
    chain = QuantizedLinear(found, dtype)
    chain.set_inputs(varying(x))
    fused = custom_op("vmo_linear_bias_2", 1 + len(found.fused()))
    expected = to_torch(fused(tensor(x), *found.fused()))
    assert torch.equal(to_torch(chain(tensor(x))), expected)
