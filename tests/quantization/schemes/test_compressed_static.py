# SPDX-License-Identifier: Apache-2.0
"""Static scales of compressed-tensors become what the kernels take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.quantization.schemes.folders import Stored, have, load, values
from vllm_mindspore.quantization.schemes.base import Kind
from vllm_mindspore.quantization.schemes.compressed_static import CompressedStatic

pytestmark = pytest.mark.usefixtures("mindspore_runtime")
INNER, OFFSET = 20, -7


def layer(
    rng: np.random.Generator, size: int = 6, dtype: torch.dtype = torch.float32, *, zero: bool
) -> Stored:
    weight = torch.from_numpy(rng.integers(-128, 128, (size, INNER), dtype=np.int8))
    scale = torch.from_numpy(rng.uniform(0.01, 0.02, (size, 1))).to(dtype)
    found = {"weight": weight, "weight_scale": scale, "input_scale": torch.tensor([0.03]).to(dtype)}
    if zero:
        found["input_zero_point"] = torch.tensor([OFFSET], dtype=torch.int8)
    return found | {"bias": torch.from_numpy(rng.standard_normal(size)).to(dtype)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("zero", [True, False])
def test_folding(tmp_path: Path, zero: bool, dtype: torch.dtype, rng: np.random.Generator) -> None:
    """(codes - z) . W == codes . W + quant_bias, in integers; a product of two bfloat16 scales is
    exact in float32."""
    layers = {name: layer(rng, size, dtype, zero=zero) for name, size in (("q", 6), ("k", 2))}
    found = load(tmp_path, CompressedStatic(zero), layers, bias=True, dtype=dtype)
    assert found.kind is Kind.DIVIDE
    parts = list(layers.values())
    assert have(found.weights, [part["weight"] for part in parts])
    scale = parts[0]["input_scale"].float()
    assert have(found.scales, [scale * part["weight_scale"].float()[:, 0] for part in parts])
    offset = OFFSET if zero else 0
    codes = torch.from_numpy(rng.integers(-128, 128, INNER))
    for part, folded in zip(parts, found.quant_biases, strict=True):
        weight = part["weight"].long()
        assert torch.equal(weight @ (codes - offset), weight @ codes + values(folded).long())
    assert torch.equal(values(found.input_scale), scale.expand(INNER))
    assert torch.equal(values(found.input_offset), torch.full((INNER,), float(offset)))


def test_zeros_of_symmetric_layers_are_ignored(tmp_path: Path, rng: np.random.Generator) -> None:
    """Old files have them."""
    parts = layer(rng, zero=False)
    parts["input_zero_point"] = torch.zeros(1, dtype=torch.int8)
    parts["weight_zero_point"] = torch.zeros(6, 1, dtype=torch.int8)
    found = load(tmp_path, CompressedStatic(False), {"q": parts}, bias=True)
    assert not values(found.quant_biases).any()


Change = Callable[[Stored], object]


def without(name: str) -> Change:
    return lambda parts: parts.pop(name)


def replaced(name: str, tensor: torch.Tensor) -> Change:
    return lambda parts: parts.update({name: tensor})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("weight_scale"), r"missing tensor q.weight_scale: expected shape \[6\] or \[6, 1"),
        (without("input_scale"), r"missing tensor q.input_scale: expected shape \[1\]"),
        (without("input_zero_point"), r"missing tensor q.input_zero_point: expected shape \[1\]"),
        (replaced("weight", torch.zeros(6, INNER)), "q.weight in .*: expected dtype I8, found F32"),
        (replaced("weight_scale", torch.ones(3, 1)), r"or \[6, 1\], found \[3, 1\]"),
        (replaced("input_scale", torch.tensor([-1.0])), "input_scale: expected finite .* above 0"),
        (replaced("input_zero_point", torch.zeros(1)), "expected dtype I8, found F32"),
        (
            replaced("weight_zero_point", torch.ones(6, 1, dtype=torch.int8)),
            "weight_zero_point: expected zeros",
        ),
        (replaced("g_idx", torch.ones(6)), "extra tensor q.g_idx"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, change: Change, message: str, rng: np.random.Generator
) -> None:
    parts = layer(rng, zero=True)
    change(parts)
    with pytest.raises(ValueError, match=message):
        load(tmp_path, CompressedStatic(True), {"q": parts}, bias=True)


def test_a_zero_point_of_symmetric_inputs_is_refused(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    parts = layer(rng, zero=True)
    with pytest.raises(ValueError, match=r"q.input_zero_point: expected 0 \(symmetric inputs\)"):
        load(tmp_path, CompressedStatic(False), {"q": parts}, bias=True)


@pytest.mark.parametrize("part", ["input_scale", "input_zero_point"])
def test_layers_of_one_input_must_agree(
    tmp_path: Path, part: str, rng: np.random.Generator
) -> None:
    layers = {name: layer(rng, zero=True) for name in "qk"}
    layers["k"][part] = layers["k"][part] + 1
    with pytest.raises(ValueError, match=f"k.{part}: expected the values of q.{part}"):
        load(tmp_path, CompressedStatic(True), layers, bias=True)
