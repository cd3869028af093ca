# SPDX-License-Identifier: Apache-2.0
"""All layers as one node: the bits of a decoder whose layers run one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import mindspore as ms
import pytest
import torch
from mindspore import Tensor, nn

from tests.model_executor.layers.test_sublayers import BLOCK, DTYPES, config, steps
from tests.model_executor.layers.weights import Int8Cached, RandomSource, tensor, varying
from vllm_mindspore import bridge
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.layers.fused_layers import FusedLayers, has_fused_layers
from vllm_mindspore.model_executor.models.config import DecoderConfig
from vllm_mindspore.model_executor.models.glm4 import Glm4DecoderLayer
from vllm_mindspore.model_executor.models.llama import DecoderLayer, DecoderLayers, build_layers

LAYERS = ["model.layers.0", "model.layers.1"]


class Flat(nn.Cell):
    """The layers as a graph: graphs take no tuples of tensors whose sizes vary."""

    def __init__(self, layers: nn.Cell) -> None:
        super().__init__()
        self.layers = layers

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
        keys: list[Tensor],
        values: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        inputs = (positions, cos, sin, slots, tables, contexts, queries, None)
        return self.layers(x, inputs, keys, values)


def run(
    layers: nn.Cell,
    dtype: torch.dtype,
    shape: DecoderConfig,
    cache_dtype: torch.dtype | None = None,
) -> Sequence[torch.Tensor]:
    """Both results of each step, then the caches of all layers."""
    generator = torch.Generator().manual_seed(2)
    attention = shape.attention
    size = (4, BLOCK, attention.num_kv_heads, attention.head_dim)
    caches = [torch.zeros(size, dtype=cache_dtype or dtype) for _ in range(2 * len(LAYERS))]
    row, table = Tensor(shape=[None], dtype=ms.int32), Tensor(shape=[None, None], dtype=ms.int32)
    angles = varying(torch.empty(1, attention.rotary_dim))
    paged = [ms.mutable([varying(cache) for cache in caches[:2]]) for _ in range(2)]
    states = varying(torch.empty(1, shape.hidden_size, dtype=dtype))
    graph = Flat(layers)
    graph.set_inputs(states, angles, angles, row, row, table, row, row, *paged)
    pairs = [ms.mutable(list(map(tensor, half))) for half in (caches[:2], caches[2:])]
    found = []
    for step in steps():
        _, positions, *rest = (bridge.from_numpy(array) for array in step.arrays())
        count = len(step.positions)
        x = torch.randn(count, shape.hidden_size, generator=generator).to(dtype)
        turn = torch.randn(2, count, attention.rotary_dim, generator=generator)
        results = graph(tensor(x), *map(tensor, turn), positions, *rest, *pairs)
        found += [bridge.to_torch(result).clone() for result in results]
    return [*found, *caches]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("changes", [{}, {"qk_norm": False, "bias": True, "output_bias": True}])
def test_one_node_equals_the_layers(dtype: torch.dtype, changes: dict[str, bool]) -> None:
    shape = dataclasses.replace(config(**changes), num_layers=len(LAYERS))
    builder = LayerBuilder(source=RandomSource(dtype), fused=True)
    fused = build_layers(builder, shape, DecoderLayer)
    assert isinstance(fused, FusedLayers)
    found = run(fused, dtype, shape)
    expected = run(DecoderLayers(builder, LAYERS, shape, DecoderLayer), dtype, shape)
    for one, other in zip(found, expected, strict=True):
        assert one.isfinite().all()
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_node_equals_the_layers_with_int8_caches(dtype: torch.dtype) -> None:
    shape = dataclasses.replace(config(), num_layers=len(LAYERS))
    source = RandomSource(dtype)
    builder = LayerBuilder(source=source, fused=True, quantization=Int8Cached())
    found = run(build_layers(builder, shape, DecoderLayer), dtype, shape, torch.int8)
    one_by_one = DecoderLayers(builder, LAYERS, shape, DecoderLayer)
    expected = run(one_by_one, dtype, shape, torch.int8)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    assert all(int(cache.abs().max()) > 20 for cache in found[-2 * len(LAYERS) :])


def test_other_layers_run_one_by_one() -> None:
    source = RandomSource(torch.float32)
    fused = LayerBuilder(source=source, fused=True)
    shape = dataclasses.replace(config(), num_layers=1)
    assert not has_fused_layers(LayerBuilder(source=source, fused=False), shape)
    assert not has_fused_layers(fused, dataclasses.replace(shape, mlp_bias=True))
    assert isinstance(build_layers(fused, shape, Glm4DecoderLayer), DecoderLayers)
