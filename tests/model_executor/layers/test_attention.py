# SPDX-License-Identifier: Apache-2.0
"""Attention over a paged cache against a dense fp64 formula, fused and as a chain.

A request is prefilled in two chunks and decodes once, beside another one; its blocks are neither
in order nor next to each other.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn

from tests.model_executor.layers.weights import (
    KERNELS,
    Int8Cached,
    RandomSource,
    check,
    tensor,
    varying,
)
from vllm_mindspore import bridge
from vllm_mindspore.device.runtime import int8_caches_allowed
from vllm_mindspore.model_executor.layers.attention import (
    CacheCodes,
    ChainAttention,
    FusedAttention,
    build_attention,
)
from vllm_mindspore.model_executor.layers.attention_config import AttentionConfig
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.worker.input_batch import build_step_inputs

BLOCK, NUM_BLOCKS = 16, 9
LONG, SHORT = 37, 6  # tokens of the two requests
BLOCK_TABLES = np.array([[7, 2, 5], [3, 1, 0]], np.int32)
# (computed, scheduled) tokens of both requests.
STEPS = (((0, 0), (20, 0)), ((20, 0), (16, 5)), ((36, 5), (1, 1)))
CONFIG = AttentionConfig(
    hidden_size=48,
    num_heads=6,
    num_kv_heads=2,
    head_dim=32,
    rotary_dim=32,
    norm_epsilon=1e-5,
    qk_norm=False,
    bias=False,
)
CONFIGS = {
    "grouped": CONFIG,
    "qk_norm": dataclasses.replace(CONFIG, qk_norm=True),
    "bias": dataclasses.replace(CONFIG, bias=True),
    "output_bias": dataclasses.replace(CONFIG, output_bias=True),
    "partial": dataclasses.replace(CONFIG, rotary_dim=16),
    "interleaved": dataclasses.replace(CONFIG, rotary_dim=16, interleaved=True),
    "one_kv_head": dataclasses.replace(CONFIG, num_kv_heads=1),
}
each_kernel = pytest.mark.parametrize(
    ("dtype", "fused"), [kernel[1:] for kernel in KERNELS], ids=[kernel[0] for kernel in KERNELS]
)


@dataclass(frozen=True)
class Rotary:
    """Arbitrary angles: what a layer does with them is under test, not their values."""

    cos: torch.Tensor
    sin: torch.Tensor

    interleaved: bool

    @staticmethod
    def make(config: AttentionConfig) -> Rotary:
        pairs = config.rotary_dim // 2
        angles = torch.arange(LONG)[:, None] * torch.logspace(0, -2, pairs)[None].double()
        both = angles.repeat_interleave(2, -1) if config.interleaved else angles.repeat(1, 2)
        return Rotary(both.cos(), both.sin(), config.interleaved)

    def turn(self, heads: torch.Tensor) -> torch.Tensor:
        """heads fp64 [T, heads, dim], one row per position."""
        turned, rest = heads.tensor_split([self.cos.shape[-1]], -1)
        if self.interleaved:
            pairs = turned.unflatten(-1, (-1, 2))
            other = torch.stack([-pairs[..., 1], pairs[..., 0]], -1).flatten(-2)
        else:
            first, second = turned.chunk(2, -1)
            other = torch.cat([-second, first], -1)
        cos, sin = (table[: len(heads), None] for table in (self.cos, self.sin))
        return torch.cat([turned * cos + other * sin, rest], -1)


class Dense:
    """The whole sequence at once, in fp64."""

    def __init__(self, source: RandomSource, config: AttentionConfig, rotary: Rotary) -> None:
        self.source, self.config, self.rotary = source, config, rotary

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [T, hidden] -> [T, hidden]."""
        config = self.config
        query = self.rotary.turn(self.heads(x, "q", config.num_heads))
        key = self.rotary.turn(self.heads(x, "k", config.num_kv_heads))
        value = self.heads(x, "v", config.num_kv_heads)
        group = config.num_heads // config.num_kv_heads
        key, value = (heads.repeat_interleave(group, 1) for heads in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query, key) / config.head_dim**0.5
        later = torch.ones(len(x), len(x)).triu(1).bool()
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        attended = torch.einsum("hqk,khd->qhd", weights, value).flatten(1)
        output = attended @ self.source.wide("attn.o_proj.weight").T
        return output + self.source.wide("attn.o_proj.bias") if config.output_bias else output

    def heads(self, x: torch.Tensor, name: str, count: int) -> torch.Tensor:
        """Projected, and normalised if the layer does so: [T, heads, dim]."""
        projected = x.double() @ self.source.wide(f"attn.{name}_proj.weight").T
        if self.config.bias:
            projected = projected + self.source.wide(f"attn.{name}_proj.bias")
        heads = projected.reshape(len(x), count, self.config.head_dim)
        if not self.config.qk_norm or name == "v":
            return heads
        mean = heads.square().mean(-1, keepdim=True) + self.config.norm_epsilon
        return heads / mean.sqrt() * self.source.wide(f"attn.{name}_norm.weight")


class Flat(nn.Cell):
    """A layer as a graph of its own: graphs take no tuples of tensors whose sizes vary."""

    def __init__(self, layer: nn.Cell) -> None:
        super().__init__()
        self.layer = layer

    def construct(
        self,
        x: Tensor,
        positions: Tensor,
        cos: Tensor,
        sin: Tensor,
        slots: Tensor,
        tables: Tensor,
        contexts: Tensor,
        queries: Tensor,
        key_cache: Tensor,
        value_cache: Tensor,
    ) -> Tensor:
        """The layer's arguments one after the other."""
        inputs = (positions, cos, sin, slots, tables, contexts, queries, None)
        return self.layer(x, inputs, key_cache, value_cache)


def flat(
    layer: nn.Cell,
    dtype: torch.dtype,
    tables: torch.dtype,
    config: AttentionConfig,
    cached: torch.dtype | None = None,
) -> Flat:
    """One compilation for all steps, as the backend declares its graphs."""
    row = Tensor(shape=[None], dtype=ms.int32)
    blocks = Tensor(shape=[None, None], dtype=ms.int32)
    angles = varying(torch.empty(1, config.rotary_dim, dtype=tables))
    kind = cached or dtype
    cache = varying(torch.empty(1, BLOCK, config.num_kv_heads, config.head_dim, dtype=kind))
    x = varying(torch.empty(1, config.hidden_size, dtype=dtype))
    graph = Flat(layer)
    graph.set_inputs(x, row, angles, angles, row, blocks, row, row, cache, cache)
    return graph


def paged(
    graph: Flat, sequences: list[torch.Tensor], rotary: Rotary, tables: torch.dtype, kv: Any
) -> list[torch.Tensor]:
    """Runs STEPS; each request's rows put together."""
    results: list[list[torch.Tensor]] = [[], []]
    known = np.zeros((2, 3 * BLOCK), np.int32)
    for computed, scheduled in STEPS:
        counts = (np.array(values, np.int32) for values in (computed, scheduled))
        inputs = build_step_inputs(known, BLOCK_TABLES, *counts, BLOCK)
        parts = [
            sequence[start : start + count]
            for sequence, start, count in zip(sequences, computed, scheduled, strict=True)
        ]
        cos, sin = (
            tensor(table[torch.from_numpy(inputs.positions)].to(tables))
            for table in (rotary.cos, rotary.sin)
        )
        _, positions, *rest = (bridge.from_numpy(array) for array in inputs.arrays())
        y = graph(tensor(torch.cat(parts)), positions, cos, sin, *rest, *kv)
        rows = bridge.to_torch(y).clone().split(list(scheduled))
        for result, part in zip(results, rows, strict=True):
            result.append(part)
    return [torch.cat(result) for result in results]


@each_kernel
@pytest.mark.parametrize("name", CONFIGS)
def test_paged_steps_equal_the_dense_formula(dtype: torch.dtype, fused: bool, name: str) -> None:
    config = CONFIGS[name]
    source, rotary = RandomSource(dtype), Rotary.make(config)
    layer = build_attention(LayerBuilder(source=source, fused=fused), "attn", config)
    tables = torch.float32 if fused else dtype  # as models.llama.Decoder makes them
    graph = flat(layer, dtype, tables, config)
    sequences = [(2 * torch.randn(n, config.hidden_size)).to(dtype) for n in (LONG, SHORT)]
    shape = (NUM_BLOCKS, BLOCK, config.num_kv_heads, config.head_dim)
    caches = [torch.full(shape, 1e3, dtype=dtype) for _ in range(2)]
    found = paged(graph, sequences, rotary, tables, tuple(map(tensor, caches)))
    dense = Dense(source, config, rotary)
    for rows, sequence in zip(found, sequences, strict=True):
        check(tensor(rows), dense(sequence), dtype, 4)
    used = set(BLOCK_TABLES[0]) | {BLOCK_TABLES[1, 0]}
    for cache in caches:
        untouched = [block for block in range(NUM_BLOCKS) if block not in used]
        assert bool((cache[untouched] == 1e3).all()), "only the requests' blocks are written"
    assert len(graph.compile_cache) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["qk_norm", "interleaved"])
def test_int8_caches_are_the_same_fused_and_as_a_chain(name: str, dtype: torch.dtype) -> None:
    """To the last bit, codes and results, where scales are numbers of the model's dtype."""
    config, source = CONFIGS[name], RandomSource(dtype)
    size, rotary = config.kv_size, Rotary.make(config)
    for part in ("k_proj", "v_proj"):
        scale = torch.randint(3, 6, (size,)) / 128.0
        source.weights[f"attn.{part}.kv_cache_scale"] = scale
        source.weights[f"attn.{part}.kv_cache_offset"] = torch.randint(-9, 10, (size,)).float()
    sequences = [(2 * torch.randn(n, config.hidden_size)).to(dtype) for n in (LONG, SHORT)]
    shape = (NUM_BLOCKS, BLOCK, config.num_kv_heads, config.head_dim)
    found = []
    for fused in (True, False):
        builder = LayerBuilder(source=source, fused=fused, quantization=Int8Cached())
        graph = flat(build_attention(builder, "attn", config), dtype, dtype, config, torch.int8)
        caches = [torch.full(shape, 99, dtype=torch.int8) for _ in range(2)]
        with int8_caches_allowed():
            rows = paged(graph, sequences, rotary, dtype, tuple(map(tensor, caches)))
        found.append([*rows, *caches])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    assert len(found[0][2].unique()) > 20, "keys use few codes"


@pytest.mark.parametrize("offset", [0.5, 128])
def test_offsets_that_a_chain_cannot_hold(offset: float) -> None:
    values = np.full((4, 8), 1, np.float32)
    values[3, 5] = offset
    with pytest.raises(ValueError, match=r"attn: an offset .* no whole number from -128 to 127"):
        CacheCodes("attn", values, torch.float16)


@pytest.mark.parametrize(("fused", "kind"), [(True, FusedAttention), (False, ChainAttention)])
def test_the_builder_chooses_the_kernels(fused: bool, kind: type) -> None:
    builder = LayerBuilder(source=RandomSource(torch.bfloat16), fused=fused)
    assert type(build_attention(builder, "attn", CONFIG)) is kind


def test_sizes_follow_the_heads() -> None:
    assert (CONFIG.query_size, CONFIG.kv_size) == (6 * 32, 2 * 32)
    assert CONFIG.scale == pytest.approx(32**-0.5)
