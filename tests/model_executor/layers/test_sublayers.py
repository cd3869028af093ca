# SPDX-License-Identifier: Apache-2.0
"""The halves of a decoder layer as one node each: the bits of the layers they are made of."""

from __future__ import annotations

import dataclasses
from typing import Any

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn

from tests.model_executor.layers.weights import Int8Cached, RandomSource, tensor, varying
from vllm_mindspore import bridge
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.layers.sublayers import (
    AttentionSublayer,
    FusedAttentionSublayer,
    FusedMlpSublayer,
    MlpSublayer,
    build_attention_sublayer,
    build_mlp_sublayer,
)
from vllm_mindspore.model_executor.models.config import DecoderConfig, decoder_config
from vllm_mindspore.worker.input_batch import StepInputs, build_step_inputs

BLOCK = 16
TABLES = np.array([[2, 0], [1, 3]], np.int32)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def config(**changes: Any) -> DecoderConfig:
    from transformers import Qwen3Config

    base = decoder_config(
        Qwen3Config(
            vocab_size=64,
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=1,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=16,
        )
    )
    return dataclasses.replace(base, attention=dataclasses.replace(base.attention, **changes))


class Flat(nn.Cell):
    """A half as a graph of its own: graphs take no tuples of tensors whose sizes vary."""

    def __init__(self, half: nn.Cell) -> None:
        super().__init__()
        self.half = half

    def construct(
        self,
        x: Tensor,
        residual: Tensor,
        cos: Tensor,
        sin: Tensor,
        positions: Tensor,
        slots: Tensor,
        tables: Tensor,
        contexts: Tensor,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
    ) -> tuple[Tensor, Tensor]:
        inputs = (positions, cos, sin, slots, tables, contexts, queries, None)
        return self.half(x, residual, inputs, keys, values)


class FlatFirst(Flat):
    """The first layer of a decoder has no residual."""

    def construct(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        positions: Tensor,
        slots: Tensor,
        tables: Tensor,
        contexts: Tensor,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
    ) -> tuple[Tensor, Tensor]:
        inputs = (positions, cos, sin, slots, tables, contexts, queries, None)
        return self.half(x, None, inputs, keys, values)


def steps() -> list[StepInputs]:
    known = np.zeros((2, 2 * BLOCK), np.int32)
    counts = (([0, 0], [20, 3]), ([20, 3], [1, 4]))
    return [
        build_step_inputs(known, TABLES, np.array(done), np.array(new), BLOCK)
        for done, new in counts
    ]


def run(
    half: nn.Cell,
    dtype: torch.dtype,
    shape: DecoderConfig,
    first: bool,
    cache_dtype: torch.dtype | None = None,
) -> list[torch.Tensor]:
    """Both results of each step, then the caches."""
    generator = torch.Generator().manual_seed(2)
    attention = shape.attention
    cache = (4, BLOCK, attention.num_kv_heads, attention.head_dim)
    caches = [torch.zeros(cache, dtype=cache_dtype or dtype) for _ in range(2)]
    states = torch.empty(1, shape.hidden_size, dtype=dtype)
    angles = varying(torch.empty(1, attention.rotary_dim))
    row, table = Tensor(shape=[None], dtype=ms.int32), Tensor(shape=[None, None], dtype=ms.int32)
    graph = FlatFirst(half) if first else Flat(half)
    known = [varying(states)] * (1 if first else 2)
    paged = [varying(cache) for cache in caches]
    graph.set_inputs(*known, angles, angles, row, row, table, row, row, *paged)
    found = []
    for step in steps():
        _, positions, *rest = (bridge.from_numpy(array) for array in step.arrays())
        count = len(step.positions)
        rows = [torch.randn(count, shape.hidden_size, generator=generator) for _ in known]
        turn = torch.randn(2, count, attention.rotary_dim, generator=generator)
        inputs = [tensor(values.to(dtype)) for values in rows] + [tensor(each) for each in turn]
        results = graph(*inputs, positions, *rest, *map(tensor, caches))
        found += [bridge.to_torch(result).clone() for result in results]
    return [*found, *caches]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"qk_norm": False, "bias": True},
        {"output_bias": True},
        {"bias": True, "output_bias": True},
    ],
    ids=lambda changes: "+".join(changes) or "plain",
)
def test_attention_half(dtype: torch.dtype, first: bool, changes: dict[str, bool]) -> None:
    shape, builder = config(**changes), LayerBuilder(source=RandomSource(dtype), fused=True)
    fused = build_attention_sublayer(builder, "layer", shape, first=first)
    assert isinstance(fused, FusedAttentionSublayer)
    found = run(fused, dtype, shape, first)
    expected = run(AttentionSublayer(builder, "layer", shape), dtype, shape, first)
    for one, other in zip(found, expected, strict=True):
        assert one.isfinite().all()
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_attention_half_with_an_int8_cache(dtype: torch.dtype) -> None:
    shape = config(output_bias=True)
    builder = LayerBuilder(source=RandomSource(dtype), fused=True, quantization=Int8Cached())
    fused = build_attention_sublayer(builder, "layer", shape, first=False)
    assert isinstance(fused, FusedAttentionSublayer)
    found = run(fused, dtype, shape, False, torch.int8)
    expected = run(AttentionSublayer(builder, "layer", shape), dtype, shape, False, torch.int8)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    assert found[-1].dtype == torch.int8
    assert all(int(cache.abs().max()) > 20 for cache in found[-2:])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_feed_forward_half(dtype: torch.dtype) -> None:
    shape, builder = config(), LayerBuilder(source=RandomSource(dtype), fused=True)
    fused = build_mlp_sublayer(builder, "layer", shape)
    assert isinstance(fused, FusedMlpSublayer)
    halves = fused, MlpSublayer(builder, "layer", shape)
    inputs = torch.empty(1, shape.hidden_size, dtype=dtype)
    for half in halves:
        half.set_inputs(varying(inputs), varying(inputs), None)
    for tokens in (1, 7, 40):
        x, residual = (torch.randn(tokens, shape.hidden_size).to(dtype) for _ in range(2))
        results = [half(tensor(x), tensor(residual), None) for half in halves]
        for one, other in zip(*results, strict=True):
            found = bridge.to_torch(one).clone()
            torch.testing.assert_close(found, bridge.to_torch(other), rtol=0, atol=0)
            assert found.isfinite().all()


def test_what_one_node_cannot_do_is_made_of_layers() -> None:
    source = RandomSource(torch.float32)
    fused, chain = (LayerBuilder(source=source, fused=flag) for flag in (True, False))
    shape = config()
    assert isinstance(build_attention_sublayer(chain, "a", shape, first=True), AttentionSublayer)
    assert isinstance(build_mlp_sublayer(chain, "a", shape), MlpSublayer)
    for change in ({"mlp_bias": True}, {"one_gate_up_tensor": True}):
        other = dataclasses.replace(shape, **change)
        assert isinstance(build_mlp_sublayer(fused, "b", other), MlpSublayer)
