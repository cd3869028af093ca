# SPDX-License-Identifier: Apache-2.0
"""W4A16 as either tool packs it becomes what the kernels read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tests.quantization import weight_only
from tests.quantization.schemes.folders import Stored, have, load, source, stored, values
from vllm_mindspore.model_executor.model_loader.safetensors import SafetensorsSource
from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.description import GROUP_SIZES, WEIGHT_INT4, Tool
from vllm_mindspore.quantization.ptq.linears import Linear
from vllm_mindspore.quantization.schemes.base import Kind, LinearParameters, Projections
from vllm_mindspore.quantization.schemes.w4a16 import W4A16, in_blocks
from vllm_mindspore.quantization.schemes.weight_scales import Form

pytestmark = pytest.mark.usefixtures("mindspore_runtime")
WRITTEN = Path(__file__).parents[2] / "fixtures" / "golden_stick_1.4.1" / "w4"
SCHEME = W4A16(Form(GROUP_SIZES, turned=True), Tool.GOLDEN_STICK)
MODELSLIM = W4A16(Form(GROUP_SIZES, turned=False, subtracted=True), Tool.MODELSLIM)
INNER = 128


def layer(rng: np.random.Generator, size: int = 6, group_size: int = 0) -> Stored:
    weight = rng.standard_normal((size, INNER)).astype(np.float32)
    bias = rng.standard_normal(size).astype(np.float32)
    found = weight_only.store(Linear(weight, bias), WEIGHT_INT4, Tool.GOLDEN_STICK, group_size)
    return stored(found, Tool.GOLDEN_STICK, torch.bfloat16)


def load_layers(folder: Path, layers: dict[str, Stored]) -> LinearParameters:
    return load(folder, SCHEME, layers, bias=True, dtype=torch.bfloat16, int4=True)


@pytest.mark.parametrize("size", [2, 6, 510, 1026])
@pytest.mark.parametrize("inner", [1, 31, 32, 33, 64, 65, 200, 512, 513, 1100])
def test_blocks_hold_the_codes(size: int, inner: int, rng: np.random.Generator) -> None:
    codes = rng.integers(-8, 8, (size, inner), np.int8)
    found = in_blocks(torch.from_numpy(primitives.pack_int4(codes)))
    np.testing.assert_array_equal(found.numpy(), primitives.int4_blocks(codes))


@pytest.mark.parametrize("group_size", [0, 64])
def test_what_kernels_take(tmp_path: Path, group_size: int, rng: np.random.Generator) -> None:
    layers = {name: layer(rng, size, group_size) for name, size in (("q", 6), ("k", 2))}
    found = load_layers(tmp_path, layers)
    assert (found.kind, found.group_size, found.offsets) == (Kind.WEIGHT_INT4, group_size, ())
    descriptor, *kernels = found.fused()
    assert values(descriptor).tolist() == [4, INNER, group_size, 0]
    expected = [
        torch.from_numpy(primitives.int4_blocks(primitives.unpack_int4(parts["weight"].numpy())))
        for parts in layers.values()
    ]
    expected += [parts["bias"].view(torch.int16) for parts in layers.values()]
    scales = [parts["weight_scale"].float() for parts in layers.values()]
    expected += [scale.T if group_size else scale for scale in scales]
    assert have(kernels, expected)


def test_offsets_of_groups(tmp_path: Path, rng: np.random.Generator) -> None:
    parts = layer(rng, group_size=64)
    parts["weight_offset"][1] = -3
    found = load_layers(tmp_path, {"q": parts})
    assert torch.equal(values(found.offsets), parts["weight_offset"].float().T)
    assert values(found.fused()[0]).tolist() == [4, INNER, 64, 1]


def test_a_file_of_golden_stick() -> None:
    name = "model.layers.0.mlp.down_proj"
    written = load_file(WRITTEN / "quant-model-00001-of-00001.safetensors")
    codes = primitives.unpack_int4(written[f"{name}.weight"])
    opened = SafetensorsSource(WRITTEN, torch.bfloat16)
    found = SCHEME.parameters(opened, Projections((name,), INNER, (64,)))
    np.testing.assert_array_equal(values(found.weights).numpy(), primitives.int4_blocks(codes))
    np.testing.assert_array_equal(values(found.scales).numpy(), written[f"{name}.weight_scale"].T)
    assert found.group_size == 64


# Codes of two outputs and four inputs, and the bytes that ModelSlim's own tests give for them.
CODES = np.array([[1, 2, 3, 4], [5, 6, 7, -8]], np.int8)
PER_OUTPUT, GROUPED = [[33, 67], [101, -121]], [[81, 98, 115, -124]]


@pytest.mark.parametrize(("grouped", "packed"), [(False, PER_OUTPUT), (True, GROUPED)])
def test_bytes_of_modelslim(grouped: bool, packed: list[list[int]]) -> None:
    assert weight_only.pack(CODES, Tool.MODELSLIM, grouped=grouped).tolist() == packed
    found = weight_only.unpack(np.array(packed, np.int8), Tool.MODELSLIM, grouped=grouped)
    np.testing.assert_array_equal(found, CODES)


def of_modelslim(rng: np.random.Generator, size: int, group_size: int) -> tuple[Stored, np.ndarray]:
    """The tensors of a layer and its codes [N, K]."""
    weight = rng.standard_normal((size, INNER)).astype(np.float32)
    found = weight_only.store(Linear(weight), WEIGHT_INT4, Tool.MODELSLIM, group_size)
    grouped = group_size > 0
    codes = weight_only.unpack(np.asarray(found["weight"]), Tool.MODELSLIM, grouped=grouped)
    return stored(found, Tool.MODELSLIM, torch.bfloat16), codes


def load_modelslim(folder: Path, parts: Stored, size: int) -> LinearParameters:
    opened = source(folder, {"q": parts}, torch.bfloat16)
    found = MODELSLIM.parameters(opened, Projections(("q",), INNER, (size,)))
    opened.finish()
    return found


@pytest.mark.parametrize("form", ["packed", "a byte for each"])
@pytest.mark.parametrize("group_size", [0, 64])
@pytest.mark.parametrize("size", [6, 1030])
def test_what_kernels_take_of_modelslim(
    tmp_path: Path, size: int, group_size: int, form: str, rng: np.random.Generator
) -> None:
    parts, codes = of_modelslim(rng, size, group_size)
    if form != "packed":
        parts["weight"] = torch.from_numpy(np.ascontiguousarray(codes))
    parts["weight_offset"] = parts["weight_offset"] + 2
    found = load_modelslim(tmp_path, parts, size)
    np.testing.assert_array_equal(values(found.weights).numpy(), primitives.int4_blocks(codes))
    scale = parts["weight_scale"].float()
    assert torch.equal(values(found.scales), scale if group_size else scale.reshape(-1))
    assert found.group_size == group_size
    assert (values(found.offsets) == -2).all()


def test_codes_of_modelslim_that_need_more_bits(tmp_path: Path, rng: np.random.Generator) -> None:
    parts, codes = of_modelslim(rng, 6, 0)
    parts["weight"] = torch.from_numpy(np.ascontiguousarray(codes))
    parts["weight"][1, 3] = 8
    with pytest.raises(ValueError, match=r"q.weight: expected .* -8 to 7 in each byte, found .* 8"):
        load_modelslim(tmp_path, parts, 6)


def test_pairs_of_modelslim_fit_its_scales(tmp_path: Path, rng: np.random.Generator) -> None:
    grouped, per_output = of_modelslim(rng, 6, 64)[0], of_modelslim(rng, 6, 0)[0]
    grouped["weight"] = per_output["weight"]
    with pytest.raises(ValueError, match=r"expected shape \[3, 128\] beside .* groups, found \[6"):
        load_modelslim(tmp_path, grouped, 6)


def resident(folder: Path) -> int:
    """Bytes of mapped files of a folder that are in memory."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            ours = str(folder) in line
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) << 10
    return total


def test_pages_of_the_file_are_given_back(tmp_path: Path, rng: np.random.Generator) -> None:
    codes = rng.integers(-8, 8, (4096, INNER), np.int8)
    parts = layer(rng, 4096)
    parts["weight"] = torch.from_numpy(primitives.pack_int4(codes))
    opened = source(tmp_path, {"q": parts}, torch.bfloat16)
    found = SCHEME.parameters(opened, Projections(("q",), INNER, (4096,), bias=True))
    opened.finish()
    assert resident(tmp_path) < parts["weight"].nbytes / 2
    np.testing.assert_array_equal(values(found.weights).numpy(), primitives.int4_blocks(codes))
    again = opened.stored("q.weight", [(INNER, 2048)], [torch.int8])
    assert torch.equal(again, parts["weight"])  # from the file


def without(name: str) -> Callable[[Stored], object]:
    return lambda parts: parts.pop(name)


def replaced(name: str, tensor: torch.Tensor) -> Callable[[Stored], object]:
    return lambda parts: parts.update({name: tensor})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("weight_scale"), "missing tensor q.weight_scale: expected shape"),
        (
            replaced("weight_scale", torch.ones(3, 6)),
            r"q.weight_scale in model.safetensors: expected shape .*, found \[3, 6\]",
        ),
        (
            replaced("weight", torch.zeros(INNER, 3, dtype=torch.int32)),
            "q.weight in model.safetensors: expected dtype I8, found I32",
        ),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, change: Callable[[Stored], object], message: str, rng: np.random.Generator
) -> None:
    parts = layer(rng)
    change(parts)
    with pytest.raises(ValueError, match=message):
        load_layers(tmp_path, {"q": parts})


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (4, r"q.weight in model.safetensors: expected shape \[128, 2\], found \[128, 3\]"),
        (7, "q.weight: expected an even number of outputs in pairs, found 7"),
    ],
)
def test_weights_that_are_not_the_models(
    tmp_path: Path, size: int, message: str, rng: np.random.Generator
) -> None:
    opened = source(tmp_path, {"q": layer(rng)}, torch.bfloat16)
    SCHEME.parameters(opened, Projections(("q",), INNER, (size,), bias=True))
    with pytest.raises(ValueError, match=message):
        opened.finish()
