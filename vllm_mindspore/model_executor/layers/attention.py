# SPDX-License-Identifier: Apache-2.0
"""Causal grouped-query attention over a paged key/value cache, two ways.

`FusedAttention` is one CPU node between the projections. `ChainAttention` is the same in
builtin primitives: what an NPU runs. Both write this step's keys and values into the caches
before they attend, so one graph serves prefill, chunked prefill and decode.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops.auto_generate import gen_ops_prim

from vllm_mindspore import bridge
from vllm_mindspore.device.custom_ops import custom_op
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.layers.layernorm import RmsNorm
from vllm_mindspore.model_executor.layers.linear import FusedLinear, Linear, SplitLinear

PagedInputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""positions i32 [T], cos and sin [T, rotary_dim], slot mapping i32 [T], block tables
i32 [B, blocks], context lengths i32 [B] and query lengths i32 [B] of one step."""

# ApplyRotaryPosEmb's cos_format for cos and sin that already hold one row per token.
_ROWS_PER_TOKEN = 2


@dataclass(frozen=True)
class AttentionConfig:
    """The shape of one attention layer."""

    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rotary_dim: int
    norm_epsilon: float
    qk_norm: bool
    """Whether query and key heads are normalised before they are rotated (Qwen3)."""
    bias: bool
    """Whether the query, key and value projections have biases."""

    @property
    def query_size(self) -> int:
        """Width of all query heads."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all key (or value) heads."""
        return self.num_kv_heads * self.head_dim

    @property
    def scale(self) -> float:
        """The factor on query . key."""
        return float(self.head_dim**-0.5)


def build_attention(builder: LayerBuilder, name: str, config: AttentionConfig) -> nn.Cell:
    """The attention layer `name` for the builder's kernels."""
    kind = FusedAttention if builder.fused else ChainAttention
    return kind(builder, name, config)


def _projections(name: str, config: AttentionConfig) -> tuple[list[str], list[int]]:
    names = [f"{name}.q_proj", f"{name}.k_proj", f"{name}.v_proj"]
    return names, [config.query_size, config.kv_size, config.kv_size]


class FusedAttention(nn.Cell):
    """Projections around one `vmo_attention_block` node."""

    def __init__(self, builder: LayerBuilder, name: str, config: AttentionConfig) -> None:
        super().__init__()
        names, sizes = _projections(name, config)
        self.qkv = FusedLinear(builder, names, config.hidden_size, sizes, bias=config.bias)
        self.output = Linear(builder, f"{name}.o_proj", config.query_size, config.hidden_size)
        if config.qk_norm:
            self.query_gamma = builder.source.take(f"{name}.q_norm.weight", (config.head_dim,))
            self.key_gamma = builder.source.take(f"{name}.k_norm.weight", (config.head_dim,))
        else:
            dtype = builder.source.dtype
            self.query_gamma = bridge.constant(f"{name}.q_norm.unused", np.ones(1), dtype)
            self.key_gamma = bridge.constant(f"{name}.k_norm.unused", np.ones(1), dtype)
        integers = [config.num_heads, config.num_kv_heads, config.head_dim, config.rotary_dim]
        integers += [0, int(config.qk_norm), 0, 0]
        floats = [config.scale, config.norm_epsilon]
        self.integers = bridge.constant(f"{name}.integers", np.array(integers, np.int32))
        self.floats = bridge.constant(f"{name}.floats", np.array(floats, np.float32))
        self.attend = custom_op("vmo_attention_block", 13)

    def construct(
        self, x: Tensor, inputs: PagedInputs, key_cache: Tensor, value_cache: Tensor
    ) -> Tensor:
        """x [T, hidden], caches [blocks, block_size, kv_heads, head_dim] -> [T, hidden]."""
        _, cos, sin, slots, tables, contexts, queries = inputs
        attended = self.attend(
            self.qkv(x),
            self.query_gamma,
            self.key_gamma,
            cos,
            sin,
            slots,
            tables,
            contexts,
            queries,
            key_cache,
            value_cache,
            self.integers,
            self.floats,
        )
        return self.output(attended)


class ChainAttention(nn.Cell):
    """Builtin primitives from RmsNorm to PagedAttention; bfloat16 and float16 only, since
    MindSpore's inference refuses float32 caches."""

    def __init__(self, builder: LayerBuilder, name: str, config: AttentionConfig) -> None:
        super().__init__()
        names, sizes = _projections(name, config)
        self.config = config
        self.qkv = SplitLinear(builder, names, config.hidden_size, sizes, bias=config.bias)
        self.output = Linear(builder, f"{name}.o_proj", config.query_size, config.hidden_size)
        if config.qk_norm:
            epsilon = config.norm_epsilon
            self.query_norm = RmsNorm(builder, f"{name}.q_norm", config.head_dim, epsilon)
            self.key_norm = RmsNorm(builder, f"{name}.k_norm", config.head_dim, epsilon)
        self.rotate = gen_ops_prim.ApplyRotaryPosEmb(_ROWS_PER_TOKEN)
        self.write_cache = ops.auto_generate.ReshapeAndCache()
        self.attend = ops.auto_generate.PagedAttention(
            config.num_heads, config.scale, config.num_kv_heads
        )

    def construct(
        self, x: Tensor, inputs: PagedInputs, key_cache: Tensor, value_cache: Tensor
    ) -> Tensor:
        """x [T, hidden], caches [blocks, block_size, kv_heads, head_dim] -> [T, hidden]."""
        positions, cos, sin, slots, tables, contexts, queries = inputs
        query, key, value = self.qkv(x)
        if self.config.qk_norm:
            query = self.head_norm(query, self.query_norm, self.config.query_size)
            key = self.head_norm(key, self.key_norm, self.config.kv_size)
        query, key = self.rotate(query, key, cos, sin, positions)
        written = self.write_cache(key, value, key_cache, value_cache, slots)
        query = ops.depend(query, written)
        attended = self.attend(
            query, key_cache, value_cache, tables, contexts, None, None, None, queries
        )
        return self.output(attended)

    def head_norm(self, x: Tensor, norm: RmsNorm, size: int) -> Tensor:
        """Normalises each head of x [T, size]."""
        heads, _ = norm(x.reshape(-1, self.config.head_dim))
        return heads.reshape(-1, size)
