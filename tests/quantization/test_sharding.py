# SPDX-License-Identifier: Apache-2.0
"""Shards of all ranks make the whole layer again: its tensors, and what it computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.quantization import weight_only
from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.description import (
    DYNAMIC,
    STATIC,
    WEIGHT_INT4,
    WEIGHT_INT8,
    Tool,
)
from vllm_mindspore.quantization.primitives import ActivationScale
from vllm_mindspore.quantization.ptq import linears
from vllm_mindspore.quantization.ptq.linears import Linear, Tensors
from vllm_mindspore.quantization.sharding import Rank, Split, shard

OUTPUTS, INPUTS, GROUP = 24, 256, 64
TOOLS = tuple(Tool)
each_tool = pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.value)
each_count = pytest.mark.parametrize("count", [1, 2, 4])


def layer(rng: np.random.Generator) -> Linear:
    weight = rng.standard_normal((OUTPUTS, INPUTS), np.float32)
    return Linear(weight, rng.standard_normal(OUTPUTS, np.float32))


def made(rng: np.random.Generator, kind: str, tool: Tool) -> Tensors:
    if kind == STATIC:
        return linears.static(layer(rng), ActivationScale(0.02, -7), tool)
    return (
        linears.int4(layer(rng), GROUP)
        if kind == WEIGHT_INT4
        else linears.dynamic(layer(rng), tool)
    )


def parts(tensors: Tensors, kind: str, tool: Tool, split: Split, count: int) -> list[Any]:
    ranks = [Rank(index, count) for index in range(count)]
    return [
        {name: shard(values, name, kind, tool, split, rank) for name, values in tensors.items()}
        for rank in ranks
    ]


@each_tool
@each_count
@pytest.mark.parametrize("kind", [STATIC, DYNAMIC, WEIGHT_INT8])
def test_column_parallel_outputs_are_side_by_side(
    kind: str, tool: Tool, count: int, rng: np.random.Generator
) -> None:
    tensors = made(rng, kind, tool)
    x = rng.standard_normal((5, INPUTS), np.float32)
    found = [compute(x, part, kind) for part in parts(tensors, kind, tool, Split.COLUMN, count)]
    np.testing.assert_array_equal(np.concatenate(found, axis=1), compute(x, tensors, kind))


@each_tool
@each_count
def test_row_parallel_sums_add_up(tool: Tool, count: int, rng: np.random.Generator) -> None:
    """Exactly, as integers: the first rank alone has quant_bias."""
    tensors: Any = made(rng, STATIC, tool)
    x = rng.standard_normal((5, INPUTS), np.float32)
    xs = np.split(x, count, axis=1)
    found = parts(tensors, STATIC, tool, Split.ROW, count)
    total = sum(sums(part_x, part) for part_x, part in zip(xs, found, strict=True))
    np.testing.assert_array_equal(total, sums(x, tensors))
    assert all((part["deq_scale"] == tensors["deq_scale"]).all() for part in found)
    np.testing.assert_array_equal(sum(part["bias"] for part in found), tensors["bias"])


@each_tool
def test_row_parallel_tokens_find_their_own_scales(tool: Tool, rng: np.random.Generator) -> None:
    tensors = made(rng, DYNAMIC, tool)
    x = rng.standard_normal((5, INPUTS), np.float32)
    found = parts(tensors, DYNAMIC, tool, Split.ROW, 2)
    total = sum(
        compute(x_part, part, DYNAMIC)
        for x_part, part in zip(np.split(x, 2, axis=1), found, strict=True)
    )
    exact = x @ linears.float_weight(tensors, DYNAMIC).T + layer_bias(tensors)
    error = np.abs(total - exact).max() / np.abs(exact).max()
    assert 0 < error < 0.02  # codes of 8 bits


@pytest.mark.parametrize("split", Split, ids=lambda split: split.name)
@each_count
def test_int4_weights_of_groups_recombine(
    split: Split, count: int, rng: np.random.Generator
) -> None:
    tensors = made(rng, WEIGHT_INT4, Tool.GOLDEN_STICK)
    found = parts(tensors, WEIGHT_INT4, Tool.GOLDEN_STICK, split, count)
    weights = [linears.float_weight(part, WEIGHT_INT4) for part in found]
    whole = np.concatenate(weights, axis=0 if split is Split.COLUMN else 1)
    np.testing.assert_array_equal(whole, linears.float_weight(tensors, WEIGHT_INT4))


@pytest.mark.parametrize("split", Split, ids=lambda split: split.name)
@pytest.mark.parametrize("grouped", [False, True])
def test_int4_weights_of_modelslim_recombine(
    grouped: bool, split: Split, rng: np.random.Generator
) -> None:
    codes = rng.integers(-8, 8, (OUTPUTS, INPUTS), np.int8)
    stored = weight_only.pack(codes, Tool.MODELSLIM, grouped=grouped)
    arguments = ("weight", WEIGHT_INT4, Tool.MODELSLIM, split)
    parts = [shard(stored, *arguments, Rank(index, 2)) for index in range(2)]
    found = [weight_only.unpack(part, Tool.MODELSLIM, grouped=grouped) for part in parts]
    whole = np.concatenate(found, axis=0 if split is Split.COLUMN else 1)
    np.testing.assert_array_equal(whole, codes)


def test_modelslim_scales_of_groups(rng: np.random.Generator) -> None:
    scale = rng.standard_normal((OUTPUTS, 4))
    arguments = ("weight_scale", WEIGHT_INT8, Tool.MODELSLIM)
    found = shard(scale, *arguments, Split.ROW, Rank(1, 2))
    np.testing.assert_array_equal(found, scale[:, 2:])
    found = shard(scale, *arguments, Split.COLUMN, Rank(1, 2))
    np.testing.assert_array_equal(found, scale[12:])


def test_what_cannot_be_divided_is_named(rng: np.random.Generator) -> None:
    tensors = made(rng, STATIC, Tool.GOLDEN_STICK)
    rest = STATIC, Tool.GOLDEN_STICK, Split.COLUMN
    with pytest.raises(
        ValueError, match=r"weight of a W8A8 layer has 24 elements along N, which 5"
    ):
        shard(tensors["weight"], "weight", *rest, Rank(0, 5))
    with pytest.raises(ValueError, match="no tensor named 'wieght'"):
        shard(tensors["weight"], "wieght", *rest, Rank(0, 2))
    with pytest.raises(ValueError, match="rank of 0 to 1, found 2"):
        Rank(2, 2)


def sums(x: np.ndarray, tensors: Any) -> np.ndarray:
    codes = primitives.quantize(x, tensors["input_scale"], tensors["input_offset"])
    return primitives.accumulate(codes, tensors["weight"]) + tensors["quant_bias"]


def layer_bias(tensors: Any) -> np.ndarray:
    bias: np.ndarray = tensors["bias"]
    return bias


def compute(x: np.ndarray, tensors: Any, kind: str) -> np.ndarray:
    """The layer's outputs; ModelSlim's folded bias is that of quant_bias."""
    if kind == STATIC:
        return primitives.dequantize(sums(x, tensors), tensors["deq_scale"])
    if kind == WEIGHT_INT8:
        weight = linears.float_weight(tensors, kind)
        return np.stack([(x * row).sum(1) for row in weight], axis=1)
    codes, scales = primitives.quantize_per_token(x)
    total = primitives.accumulate(codes, tensors["weight"])
    found = primitives.dequantize_per_token(total, tensors["weight_scale"].reshape(-1), scales)
    return found + layer_bias(tensors)
