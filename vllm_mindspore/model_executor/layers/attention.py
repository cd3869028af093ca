# SPDX-License-Identifier: Apache-2.0
"""Causal grouped-query attention over a paged key/value cache, two ways.

`FusedAttention` is one CPU node between the projections. `ChainAttention` is the same in
builtin primitives: what an NPU runs. Both write this step's keys and values into the caches
before they attend, so one graph serves prefill, chunked prefill and decode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, mint, nn, ops
from mindspore.ops.auto_generate import gen_ops_prim

from vllm_mindspore import bridge
from vllm_mindspore.device.custom_ops import custom_op
from vllm_mindspore.model_executor.layers.attention_config import AttentionConfig
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.layers.layernorm import RmsNorm
from vllm_mindspore.model_executor.layers.linear import FusedLinear, SplitLinear, build_linear
from vllm_mindspore.model_executor.layers.reduction import over_ranks

if TYPE_CHECKING:
    import torch

PagedInputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]
"""positions i32 [T], cos and sin [T, rotary_dim], slot mapping i32 [T], block tables
i32 [B, blocks], context lengths i32 [B] and query lengths i32 [B] of one step; adapter slots
i32 [T] if the model has adapters."""

# OptionalTensor of ops/core/attention_attributes.h.
_QKV_BIAS, _OUTPUT_BIAS, _CACHE_SCALES = 1, 2, 4
# ApplyRotaryPosEmb's cos_format for cos and sin that already hold one row per token, by whether
# neighbouring elements are rotated together.
_ROWS_PER_TOKEN = {False: 2, True: 3}


def build_attention(builder: LayerBuilder, name: str, config: AttentionConfig) -> nn.Cell:
    """The attention layer `name` for the builder's kernels."""
    kind = FusedAttention if builder.fused else ChainAttention
    return kind(builder, name, config)


def projections(name: str, config: AttentionConfig) -> tuple[list[str], list[int]]:
    """Names and output sizes of the query, key and value projections."""
    names = [f"{name}.q_proj", f"{name}.k_proj", f"{name}.v_proj"]
    return names, [config.query_size, config.kv_size, config.kv_size]


def _output(builder: LayerBuilder, name: str, config: AttentionConfig) -> nn.Cell:
    sizes = (config.query_size, config.hidden_size)
    linear = build_linear(builder, f"{name}.o_proj", *sizes, bias=config.output_bias)
    return over_ranks(builder, linear)


def head_gammas(
    builder: LayerBuilder, name: str, config: AttentionConfig
) -> tuple[Parameter, Parameter]:
    """Weights [head_dim] of the query and key norms for the fused kernels; placeholders where
    there are none."""
    if config.qk_norm:
        take, shape = builder.source.take_bits, (config.head_dim,)
        return take(f"{name}.q_norm.weight", shape), take(f"{name}.k_norm.weight", shape)
    unused, dtype = np.ones(1), builder.source.dtype
    return (
        bridge.constant(f"{name}.q_norm.unused", unused, dtype),
        bridge.constant(f"{name}.k_norm.unused", unused, dtype),
    )


def kernel_attributes(
    builder: LayerBuilder,
    config: AttentionConfig,
    *,
    whole: bool,
    first: bool = False,
    input_epsilon: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The attribute tensors of the fused kernels (ops/core/attention_attributes.h). The block alone
    is not told what only kernels with norm and projections around it need (`whole`)."""
    optional = config.bias * _QKV_BIAS + config.output_bias * _OUTPUT_BIAS if whole else 0
    optional += builder.quantization.int8_cache * _CACHE_SCALES
    integers = [config.num_heads, config.num_kv_heads, config.head_dim, config.rotary_dim]
    integers += [int(config.interleaved), int(config.qk_norm), int(first), optional]
    floats = [config.scale, config.norm_epsilon, input_epsilon]
    return Tensor(np.array(integers, np.int32)), Tensor(np.array(floats, np.float32))


class FusedAttention(nn.Cell):
    """Projections around one `vmo_attention_block` node."""

    def __init__(self, builder: LayerBuilder, name: str, config: AttentionConfig) -> None:
        super().__init__()
        names, sizes = projections(name, config)
        self.qkv = FusedLinear(builder, names, config.hidden_size, sizes, bias=config.bias)
        self.output = _output(builder, name, config)
        self.query_gamma, self.key_gamma = head_gammas(builder, name, config)
        self.integers, self.floats = kernel_attributes(builder, config, whole=False)
        self.cache_scales = ParameterTuple(builder.cache_scales(name, config.kv_size))
        self.attend = custom_op("vmo_attention_block", 13 + len(self.cache_scales))

    def construct(
        self, x: Tensor, inputs: PagedInputs, key_cache: Tensor, value_cache: Tensor
    ) -> Tensor:
        """x [T, hidden], caches [blocks, block_size, kv_heads, head_dim] -> [T, hidden]."""
        _, cos, sin, slots, tables, contexts, queries, adapters = inputs
        attended = self.attend(
            self.qkv(x, adapters),
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
            *self.cache_scales,
        )
        return self.output(attended, adapters)


class ChainAttention(nn.Cell):
    """Builtin primitives from RmsNorm to PagedAttention; bfloat16 and float16 only, since
    MindSpore's inference refuses float32 caches."""

    def __init__(self, builder: LayerBuilder, name: str, config: AttentionConfig) -> None:
        super().__init__()
        names, sizes = projections(name, config)
        self.config = config
        self.qkv = SplitLinear(builder, names, config.hidden_size, sizes, bias=config.bias)
        self.output = _output(builder, name, config)
        if config.qk_norm:
            epsilon = config.norm_epsilon
            self.query_norm = RmsNorm(builder, f"{name}.q_norm", config.head_dim, epsilon)
            self.key_norm = RmsNorm(builder, f"{name}.k_norm", config.head_dim, epsilon)
        self.rotary = ChainRotary(config)
        self.codes: CacheCodes | None = None
        if scales := builder.cache_scales(name, config.kv_size):
            self.codes = CacheCodes(name, scales[0].asnumpy(), builder.source.dtype)
        self.write_cache = ops.auto_generate.ReshapeAndCache()
        self.attend = ops.auto_generate.PagedAttention(
            config.num_heads, config.scale, config.num_kv_heads
        )

    def construct(
        self, x: Tensor, inputs: PagedInputs, key_cache: Tensor, value_cache: Tensor
    ) -> Tensor:
        """x [T, hidden], caches [blocks, block_size, kv_heads, head_dim] -> [T, hidden]."""
        positions, cos, sin, slots, tables, contexts, queries, adapters = inputs
        query, key, value = self.qkv(x, adapters)
        if self.config.qk_norm:
            query = self.head_norm(query, self.query_norm, self.config.query_size)
            key = self.head_norm(key, self.key_norm, self.config.kv_size)
        query, key = self.rotary(query, key, cos, sin, positions)
        scale = offset = None
        if self.codes is not None:
            key, value = self.codes(key, value)
            scale, offset = self.codes.restored_scale, self.codes.restored_offset
        written = self.write_cache(key, value, key_cache, value_cache, slots)
        query = ops.depend(query, written)
        attended = self.attend(
            query, key_cache, value_cache, tables, contexts, scale, offset, None, queries
        )
        return self.output(attended, adapters)

    def head_norm(self, x: Tensor, norm: RmsNorm, size: int) -> Tensor:
        """Normalises each head of x [T, size]."""
        heads, _ = norm(x.reshape(-1, self.config.head_dim))
        return heads.reshape(-1, size)


class CacheCodes(nn.Cell):
    """QuantV2 of keys and values, whose scales have the model's dtype there; and what
    PagedAttention restores codes with, (code + offset) * scale."""

    def __init__(self, name: str, values: np.ndarray, dtype: torch.dtype) -> None:
        """`values` float32 [4, channels]: key scale, key offset, value scale, value offset.

        Raises ValueError for an offset that int8, which QuantV2 has for it, does not hold.
        """
        super().__init__()
        offsets = values[1::2].astype(np.int8)
        if not np.array_equal(offsets, values[1::2]):
            raise ValueError(
                f"{name}: an offset of the int8 cache is no whole number from -128 to 127, which "
                "the primitive chain cannot hold; unset VLLM_MS_FUSED_KERNELS"
            )
        scales = bridge.rounded(values[::2], dtype)
        self.key_scale = bridge.constant(f"{name}.key_scale", scales[0], dtype)
        self.value_scale = bridge.constant(f"{name}.value_scale", scales[1], dtype)
        self.key_offset = bridge.constant(f"{name}.key_offset", offsets[0])
        self.value_offset = bridge.constant(f"{name}.value_offset", offsets[1])
        self.restored_scale = bridge.constant(f"{name}.restored_scale", scales)
        restored = -values[1::2].astype(np.int32)
        self.restored_offset = bridge.constant(f"{name}.restored_offset", restored)
        self.quant = gen_ops_prim.QuantV2()

    def construct(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Both [T, channels] -> int8 codes of the same shape."""
        return (
            self.quant(key, self.key_scale, self.key_offset, False, "ROUND", ms.int8),
            self.quant(value, self.value_scale, self.value_offset, False, "ROUND", ms.int8),
        )


class ChainRotary(nn.Cell):
    """Rotates the leading `rotary_dim` elements of each head; the others pass through."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.partial = config.rotary_dim < config.head_dim
        self.sizes = (config.rotary_dim, config.head_dim - config.rotary_dim)
        self.rotate = gen_ops_prim.ApplyRotaryPosEmb(_ROWS_PER_TOKEN[config.interleaved])
        # Copies: views that mint.split makes of a reshaped tensor do not keep its memory from being
        # reused (MindSpore 2.10, CPU).
        self.split_copies = ops.auto_generate.SplitWithSize()

    def construct(
        self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """query [T, heads * head_dim], key [T, kv_heads * head_dim], cos and sin
        [T, rotary_dim] -> the rotated query and key."""
        if not self.partial:
            rotated: tuple[Tensor, Tensor] = self.rotate(query, key, cos, sin, positions)
            return rotated
        heads, kv_heads = self.config.num_heads, self.config.num_kv_heads
        query_turned, query_rest = self.split(query, heads)
        key_turned, key_rest = self.split(key, kv_heads)
        query_turned, key_turned = self.rotate(query_turned, key_turned, cos, sin, positions)
        return self.join(query_turned, query_rest, heads), self.join(key_turned, key_rest, kv_heads)

    def split(self, x: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """x [T, heads * head_dim] -> what turns [T, heads * rotary_dim], the rest
        [T, heads, head_dim - rotary_dim]."""
        heads_apart = x.reshape(-1, heads, self.config.head_dim)
        turned, rest = self.split_copies(heads_apart, self.sizes, -1)
        return turned.reshape(-1, heads * self.config.rotary_dim), rest

    def join(self, turned: Tensor, rest: Tensor, heads: int) -> Tensor:
        """The inverse of `split`."""
        joined = mint.cat([turned.reshape(-1, heads, self.config.rotary_dim), rest], -1)
        return joined.reshape(-1, heads * self.config.head_dim)
