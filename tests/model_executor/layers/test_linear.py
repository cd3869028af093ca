# SPDX-License-Identifier: Apache-2.0
"""Projections against fp64 products, one graph for every number of rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.model_executor.layers.weights import RandomSource, check, tensor, varying
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.layers.linear import FusedLinear, SplitLinear, build_linear
from vllm_mindspore.model_executor.model_loader.source import DummySource

IN, OUT = 24, [12, 5, 7]
NAMES = ["q_proj", "k_proj", "v_proj"]
ROWS = (3, 1, 6)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
each_bias = pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def project(source: RandomSource, name: str, x: torch.Tensor, *, bias: bool) -> torch.Tensor:
    product = x.double() @ source.wide(f"{name}.weight").T
    return product + source.wide(f"{name}.bias") if bias else product


def inputs(dtype: torch.dtype) -> list[torch.Tensor]:
    return [torch.randn(rows, IN).to(dtype) for rows in ROWS]


@each_dtype
@each_bias
def test_linear(dtype: torch.dtype, bias: bool) -> None:
    source = RandomSource(dtype)
    builder = LayerBuilder(source=source, fused=False)
    layer = build_linear(builder, "o_proj", IN, 10, bias=bias)
    layer.set_inputs(varying(torch.empty(1, IN, dtype=dtype)))
    for x in inputs(dtype):
        check(layer(tensor(x)), project(source, "o_proj", x, bias=bias), dtype, 1 + bias)
    assert len(layer.compile_cache) == 1


@each_dtype
@each_bias
@pytest.mark.parametrize("count", [2, 3])
def test_fused_projections_are_side_by_side(dtype: torch.dtype, bias: bool, count: int) -> None:
    source = RandomSource(dtype)
    builder = LayerBuilder(source=source, fused=True)
    names, sizes = NAMES[:count], OUT[:count]
    layer = FusedLinear(builder, names, IN, sizes, bias=bias)
    layer.set_inputs(varying(torch.empty(1, IN, dtype=dtype)))
    for x in inputs(dtype):
        expected = [project(source, name, x, bias=bias) for name in names]
        check(layer(tensor(x)), torch.cat(expected, -1), dtype, 1 + bias)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@each_bias
def test_split_projections_come_one_by_one(dtype: torch.dtype, bias: bool) -> None:
    source = RandomSource(dtype)
    builder = LayerBuilder(source=source, fused=False)
    layer = SplitLinear(builder, NAMES, IN, OUT, bias=bias)
    layer.set_inputs(varying(torch.empty(1, IN, dtype=dtype)))
    for x in inputs(dtype):
        parts: Any = layer(tensor(x))
        assert len(parts) == len(NAMES)
        for name, part in zip(NAMES, parts, strict=True):
            check(part.contiguous(), project(source, name, x, bias=bias), dtype, 1 + bias)


def test_one_parameter_for_a_head_and_its_embedding() -> None:
    source = DummySource(torch.bfloat16)
    layer: Any = build_linear(LayerBuilder(source, fused=False), "embed_tokens", IN, 10)
    assert layer.weight is source.take("embed_tokens.weight", (10, IN))


def test_fused_weights_stay_where_they_are() -> None:
    source = RandomSource(torch.float32)
    layer = FusedLinear(LayerBuilder(source=source, fused=True), NAMES, IN, OUT, bias=False)
    held = [parameter.data_ptr() for parameter in layer.parameters]
    assert held == [source.weights[f"{name}.weight"].data_ptr() for name in NAMES]
