# SPDX-License-Identifier: Apache-2.0
"""W8A8 as both tools store it becomes what the kernels take; everything else is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.quantization.schemes.folders import Stored, have, load, stored, values
from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.description import Tool
from vllm_mindspore.quantization.primitives import ActivationScale
from vllm_mindspore.quantization.ptq import linears
from vllm_mindspore.quantization.ptq.linears import Linear
from vllm_mindspore.quantization.schemes.base import Kind, LinearParameters
from vllm_mindspore.quantization.schemes.w8a8 import W8A8

pytestmark = pytest.mark.usefixtures("mindspore_runtime")
SCALE = ActivationScale(0.03, 5)
INNER = 20


def layer(
    rng: np.random.Generator, tool: Tool, size: int = 6, dtype: torch.dtype = torch.float32
) -> Stored:
    weight = rng.standard_normal((size, INNER)).astype(np.float32)
    bias = rng.standard_normal(size).astype(np.float32)
    return stored(linears.static(Linear(weight, bias), SCALE, tool), tool, dtype)


def load_one(folder: Path, tool: Tool, parts: Stored) -> LinearParameters:
    return load(folder, W8A8(tool), {"q": parts}, bias=True)


def test_golden_stick(tmp_path: Path, rng: np.random.Generator) -> None:
    parts = layer(rng, Tool.GOLDEN_STICK)
    found = load_one(tmp_path, Tool.GOLDEN_STICK, parts)
    assert found.kind is Kind.DIVIDE
    assert torch.equal(values(found.weights), parts["weight"])
    assert torch.equal(values(found.biases), parts["bias"])
    assert torch.equal(values(found.scales), parts["deq_scale"])
    assert torch.equal(values(found.quant_biases), parts["quant_bias"])
    assert torch.equal(values(found.input_scale), parts["input_scale"])
    assert torch.equal(values(found.input_offset), parts["input_offset"].float())


def test_projections_of_one_input_are_in_order(tmp_path: Path, rng: np.random.Generator) -> None:
    layers = {
        name: layer(rng, Tool.GOLDEN_STICK, size)
        for name, size in zip("qkv", (6, 2, 2), strict=True)
    }
    found = load(tmp_path, W8A8(Tool.GOLDEN_STICK), layers, bias=True)
    names = ("weight", "bias", "deq_scale", "quant_bias")
    expected = [parts[name] for name in names for parts in layers.values()]
    expected += [layers["q"]["input_scale"], layers["q"]["input_offset"].float()]
    descriptor, *kernels = found.fused()
    assert values(descriptor).tolist() == [0, INNER, 0, 0]
    assert have(kernels, expected)


def test_modelslim_folds_the_bias(tmp_path: Path, rng: np.random.Generator) -> None:
    """It is in quant_bias: the bias that the model adds is zero."""
    parts = layer(rng, Tool.MODELSLIM)
    assert parts["bias"].any()
    found = load_one(tmp_path, Tool.MODELSLIM, parts)
    assert torch.equal(values(found.biases), torch.zeros(6))
    assert torch.equal(values(found.quant_biases), parts["quant_bias"])
    scale = torch.full((INNER,), float(np.float32(SCALE.scale)))
    assert torch.equal(values(found.input_scale), scale)
    assert torch.equal(values(found.input_offset), torch.full((INNER,), 5.0))


def test_scales_of_half_precision_models(tmp_path: Path, rng: np.random.Generator) -> None:
    """float32 bits in the lower half of int64; the model's dtype for what it computes with."""
    parts = layer(rng, Tool.GOLDEN_STICK, dtype=torch.float16)
    exact = parts["deq_scale"]
    parts["deq_scale"] = torch.from_numpy(primitives.encode_deq_scale(exact.numpy()))
    scheme = W8A8(Tool.GOLDEN_STICK)
    found = load(tmp_path, scheme, {"q": parts}, bias=True, dtype=torch.float16)
    assert torch.equal(values(found.scales), exact)
    assert torch.equal(values(found.input_scale), parts["input_scale"].float())
    assert values(found.biases).dtype == torch.float16


def test_reciprocal_scales(tmp_path: Path, rng: np.random.Generator) -> None:
    """One number beside one float offset: Golden Stick's 1 / s."""
    parts = layer(rng, Tool.GOLDEN_STICK)
    parts["input_scale"], parts["input_offset"] = torch.tensor([33.0]), torch.tensor([5.0])
    found = load_one(tmp_path, Tool.GOLDEN_STICK, parts)
    assert found.kind is Kind.MULTIPLY
    assert torch.equal(values(found.input_scale), torch.full((INNER,), 33.0))
    assert torch.equal(values(found.input_offset), torch.full((INNER,), 5.0))


@pytest.mark.parametrize("tool", Tool)
def test_one_scale_with_an_integer_offset_is_no_reciprocal(
    tmp_path: Path, tool: Tool, rng: np.random.Generator
) -> None:
    parts = layer(rng, tool)
    parts["input_scale"] = torch.tensor([0.5])
    parts["input_offset"] = torch.tensor([5], dtype=torch.int8)
    found = load_one(tmp_path, tool, parts)
    assert found.kind is Kind.DIVIDE
    assert torch.equal(values(found.input_scale), torch.full((INNER,), 0.5))
    assert torch.equal(values(found.input_offset), torch.full((INNER,), 5.0))


def test_beta_shifts_the_offset(tmp_path: Path, rng: np.random.Generator) -> None:
    """It is added to the input: round((x + beta) / s + z)."""
    parts = layer(rng, Tool.MODELSLIM)
    parts["beta"] = torch.linspace(-1, 1, INNER)
    offset = load_one(tmp_path, Tool.MODELSLIM, parts).input_offset
    assert torch.equal(values(offset), 5 + parts["beta"] / np.float32(SCALE.scale))


Change = Callable[[Stored], object]


def without(name: str) -> Change:
    return lambda parts: parts.pop(name)


def replaced(name: str, values: torch.Tensor) -> Change:
    return lambda parts: parts.update({name: values})


BAD: list[tuple[Change, str]] = [
    (without("quant_bias"), r"missing tensor q.quant_bias: expected shape \[6\]"),
    (without("deq_scale"), r"missing tensor q.deq_scale: expected shape \[6\] or \[6, 1\]"),
    (without("input_scale"), r"missing tensor q.input_scale: expected shape \[20\] or \[1\]"),
    (
        replaced("weight", torch.zeros(6, INNER)),
        r"tensor q.weight in model.safetensors: expected dtype I8, found F32",
    ),
    (
        replaced("quant_bias", torch.zeros(6)),
        r"q.quant_bias in model.safetensors: expected dtype I32, found F32",
    ),
    (
        replaced("deq_scale", torch.ones(7)),
        r"q.deq_scale in model.safetensors: expected shape \[6\] or \[6, 1\], found \[7\]",
    ),
    (
        replaced("input_scale", torch.zeros(INNER)),
        "q.input_scale: expected finite numbers above 0, found 20 others of 20",
    ),
    (
        replaced("input_offset", torch.full((1,), 0.5)),
        "q.input_offset: expected whole numbers, found 20 others",
    ),
    (
        replaced("deq_scale", torch.full((6,), torch.nan)),
        "q.deq_scale: expected finite numbers, found 6 others",
    ),
    (replaced("surprise", torch.ones(2)), "extra tensor q.surprise"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_what_is_wrong_is_named(
    tmp_path: Path, change: Change, message: str, rng: np.random.Generator
) -> None:
    parts = layer(rng, Tool.GOLDEN_STICK)
    change(parts)
    with pytest.raises(ValueError, match=message):
        load_one(tmp_path, Tool.GOLDEN_STICK, parts)


@pytest.mark.parametrize("part", ["input_scale", "input_offset"])
def test_projections_of_one_input_must_agree(
    tmp_path: Path, part: str, rng: np.random.Generator
) -> None:
    layers = {name: layer(rng, Tool.GOLDEN_STICK) for name in "qk"}
    layers["k"][part] = layers["k"][part] + 1
    with pytest.raises(ValueError, match=f"k.{part}: expected the values of q.{part}"):
        load(tmp_path, W8A8(Tool.GOLDEN_STICK), layers, bias=True)


def test_weights_stay_in_the_mapped_file(tmp_path: Path, rng: np.random.Generator) -> None:
    found = load_one(tmp_path, Tool.GOLDEN_STICK, layer(rng, Tool.GOLDEN_STICK))
    weight = values(found.weights)
    maps = Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0] for line in maps if str(tmp_path) in line]
    spans = [tuple(int(end, 16) for end in item.split("-")) for item in ranges]
    assert any(low <= weight.data_ptr() < high for low, high in spans)
