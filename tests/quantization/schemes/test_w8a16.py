# SPDX-License-Identifier: Apache-2.0
"""W8A16 as both tools store it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.quantization import weight_only
from tests.quantization.schemes.folders import Stored, have, load, stored, values
from vllm_mindspore.model_executor.model_loader.safetensors import SafetensorsSource
from vllm_mindspore.quantization.description import GROUP_SIZES, WEIGHT_INT8, Tool
from vllm_mindspore.quantization.ptq.linears import Linear
from vllm_mindspore.quantization.schemes.base import Kind, LinearParameters, Projections
from vllm_mindspore.quantization.schemes.w8a16 import W8A16
from vllm_mindspore.quantization.schemes.weight_scales import Form

pytestmark = pytest.mark.usefixtures("mindspore_runtime")
WRITTEN = Path(__file__).parents[2] / "fixtures" / "golden_stick_1.4.1" / "w8"
INNER = 128


def scheme(tool: Tool) -> W8A16:
    golden_stick = tool is Tool.GOLDEN_STICK
    return W8A16(Form(GROUP_SIZES, turned=golden_stick, subtracted=not golden_stick))


def layer(rng: np.random.Generator, tool: Tool, size: int = 6, group_size: int = 0) -> Stored:
    weight = rng.standard_normal((size, INNER)).astype(np.float32)
    bias = rng.standard_normal(size).astype(np.float32)
    found = weight_only.store(Linear(weight, bias), WEIGHT_INT8, tool, group_size)
    return stored(found, tool, torch.bfloat16)


def load_layers(folder: Path, tool: Tool, layers: dict[str, Stored]) -> LinearParameters:
    return load(folder, scheme(tool), layers, bias=True, dtype=torch.bfloat16)


@pytest.mark.parametrize("tool", Tool)
def test_a_scale_for_each_output(tmp_path: Path, tool: Tool, rng: np.random.Generator) -> None:
    layers = {name: layer(rng, tool, size) for name, size in zip("qkv", (6, 2, 4), strict=True)}
    found = load_layers(tmp_path, tool, layers)
    assert (found.kind, found.group_size, found.offsets) == (Kind.WEIGHT_INT8, 0, ())
    descriptor, *kernels = found.fused()
    assert values(descriptor).tolist() == [3, INNER, 0, 0]
    expected = [parts["weight"] for parts in layers.values()]
    expected += [parts["bias"].view(torch.int16) for parts in layers.values()]
    expected += [parts["weight_scale"].float().reshape(-1) for parts in layers.values()]
    assert have(kernels, expected)


@pytest.mark.parametrize("tool", Tool)
def test_offsets_follow_the_scales(tmp_path: Path, tool: Tool, rng: np.random.Generator) -> None:
    """ModelSlim stores the codes of zero, which its documents subtract; kernels add."""
    parts = layer(rng, tool)
    parts["weight_offset"] = parts["weight_offset"] - 3
    descriptor, *kernels = load_layers(tmp_path, tool, {"q": parts}).fused()
    assert values(descriptor).tolist() == [3, INNER, 0, 1]
    scale = parts["weight_scale"].float().reshape(-1)
    offset = torch.full((6,), -3.0 if tool is Tool.GOLDEN_STICK else 3.0)
    expected = [parts["weight"], parts["bias"].view(torch.int16), scale, offset]
    assert have(kernels, expected)


def test_a_file_of_golden_stick() -> None:
    source = SafetensorsSource(WRITTEN, torch.bfloat16)
    name = "model.layers.0.mlp.down_proj"
    found = scheme(Tool.GOLDEN_STICK).parameters(source, Projections((name,), INNER, (64,)))
    assert values(found.weights).shape == (64, INNER)
    assert values(found.scales).shape == (64,)
    assert (found.group_size, found.offsets) == (0, ())


def test_weights_stay_in_the_mapped_file(tmp_path: Path, rng: np.random.Generator) -> None:
    parts = layer(rng, Tool.MODELSLIM)
    weight = values(load_layers(tmp_path, Tool.MODELSLIM, {"q": parts}).weights)
    maps = Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0] for line in maps if str(tmp_path) in line]
    spans = [tuple(int(end, 16) for end in item.split("-")) for item in ranges]
    assert any(low <= weight.data_ptr() < high for low, high in spans)


Change = Callable[[Stored], object]


def replaced(name: str, tensor: torch.Tensor) -> Change:
    return lambda parts: parts.update({name: tensor})


BAD: list[tuple[Change, str]] = [
    (
        lambda parts: parts.pop("weight_scale"),
        r"missing tensor q.weight_scale: expected shape \[6\] or \[6, 1\] or \[2, 6\]",
    ),
    (
        replaced("weight", torch.zeros(6, INNER)),
        "q.weight in model.safetensors: expected dtype I8, found F32",
    ),
    (
        replaced("weight_scale", torch.ones(4, 6)),
        r"q.weight_scale in model.safetensors: expected shape .* or \[1, 6\], found \[4, 6\]",
    ),
    (
        replaced("weight_scale", torch.ones(6, dtype=torch.int32)),
        "q.weight_scale in model.safetensors: expected dtype F32/BF16/F16, found I32",
    ),
    (
        replaced("weight_scale", torch.full((6,), torch.inf)),
        "q.weight_scale: expected finite numbers, found 6 others of 6",
    ),
    (
        replaced("weight_offset", torch.zeros(2, 6, dtype=torch.int32)),
        r"q.weight_offset in model.safetensors: expected shape \[6\], found \[2, 6\]",
    ),
    (replaced("deq_scale", torch.ones(6)), "extra tensor q.deq_scale"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_what_is_wrong_is_named(
    tmp_path: Path, change: Change, message: str, rng: np.random.Generator
) -> None:
    parts = layer(rng, Tool.GOLDEN_STICK)
    change(parts)
    with pytest.raises(ValueError, match=message):
        load_layers(tmp_path, Tool.GOLDEN_STICK, {"q": parts})
