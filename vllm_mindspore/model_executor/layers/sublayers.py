# SPDX-License-Identifier: Apache-2.0
"""The two halves of a decoder layer: a norm that first adds the residual, and what follows it.

Either half takes (x, residual) and gives what it adds to the residual, and the residual to add it
to. With fused kernels and without adapters a half is one CPU node; else it is made of the layers.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn

from vllm_mindspore.device.custom_ops import custom_op
from vllm_mindspore.model_executor.layers.activation import GatedMLP
from vllm_mindspore.model_executor.layers.attention import (
    PagedInputs,
    build_attention,
    head_gammas,
    kernel_attributes,
    projections,
)
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.layers.layernorm import RmsNorm
from vllm_mindspore.model_executor.models.config import DecoderConfig


def attention_weights(builder: LayerBuilder, layer: str, config: DecoderConfig) -> list[Parameter]:
    """The weights of an attention half in the order of the kernels (ops/core/sublayers.h)."""
    hidden, attention, name = config.hidden_size, config.attention, f"{layer}.self_attn"
    names, sizes = projections(name, attention)
    output = [f"{name}.o_proj"], attention.query_size, [hidden]
    return [
        builder.source.take_bits(f"{layer}.input_layernorm.weight", (hidden,)),
        *builder.projection(names, hidden, sizes, bias=attention.bias),
        *builder.projection(*output, bias=attention.output_bias),
        *head_gammas(builder, name, attention),
        *builder.cache_scales(name, attention.kv_size),
    ]


def mlp_weights(builder: LayerBuilder, layer: str, config: DecoderConfig) -> list[Parameter]:
    """The weights of a feed-forward half in the order of the kernels."""
    hidden, inner, name = config.hidden_size, config.intermediate_size, f"{layer}.mlp"
    gate_up = [f"{name}.gate_proj", f"{name}.up_proj"], hidden, [inner, inner]
    return [
        builder.source.take_bits(f"{layer}.post_attention_layernorm.weight", (hidden,)),
        *builder.projection(*gate_up, bias=False),
        *builder.projection([f"{name}.down_proj"], inner, [hidden], bias=False),
    ]


def has_fused_attention(builder: LayerBuilder) -> bool:
    """Whether an attention half can be one node."""
    return builder.fused and builder.adapters is None and not builder.apart


def has_fused_mlp(builder: LayerBuilder, config: DecoderConfig) -> bool:
    """Whether a feed-forward half can be one node."""
    plain = not config.mlp_bias and not config.one_gate_up_tensor
    return builder.fused and builder.adapters is None and plain and not builder.apart


def build_attention_sublayer(
    builder: LayerBuilder, layer: str, config: DecoderConfig, *, first: bool
) -> nn.Cell:
    """Attention of decoder layer `layer`; the first one gets no residual."""
    if has_fused_attention(builder):
        return FusedAttentionSublayer(builder, layer, config, first=first)
    return AttentionSublayer(builder, layer, config)


def build_mlp_sublayer(builder: LayerBuilder, layer: str, config: DecoderConfig) -> nn.Cell:
    """The feed-forward block of decoder layer `layer`."""
    if has_fused_mlp(builder, config):
        return FusedMlpSublayer(builder, layer, config)
    return MlpSublayer(builder, layer, config)


class AttentionSublayer(nn.Cell):
    """Norm and attention of their own."""

    def __init__(self, builder: LayerBuilder, layer: str, config: DecoderConfig) -> None:
        super().__init__()
        hidden, epsilon = config.hidden_size, config.norm_epsilon
        self.norm = RmsNorm(builder, f"{layer}.input_layernorm", hidden, epsilon)
        self.attention = build_attention(builder, f"{layer}.self_attn", config.attention)

    def construct(
        self,
        x: Tensor,
        residual: Tensor | None,
        inputs: PagedInputs,
        key_cache: Tensor,
        value_cache: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """x and residual [T, hidden] -> the same two."""
        x, residual = self.norm(x, residual)
        return self.attention(x, inputs, key_cache, value_cache), residual


class FusedAttentionSublayer(nn.Cell):
    """The same as one node. Its tensors in call order: ops/core/sublayers.h."""

    def __init__(
        self, builder: LayerBuilder, layer: str, config: DecoderConfig, *, first: bool
    ) -> None:
        super().__init__()
        self.weights = ParameterTuple(attention_weights(builder, layer, config))
        self.attributes = kernel_attributes(
            builder, config.attention, whole=True, first=first, input_epsilon=config.norm_epsilon
        )
        self.first = first
        self.kernel = custom_op("vmo_attention_sublayer", len(self.weights) + 12, num_outputs=2)

    def construct(
        self,
        x: Tensor,
        residual: Tensor | None,
        inputs: PagedInputs,
        key_cache: Tensor,
        value_cache: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """x and residual [T, hidden] -> the same two."""
        _, cos, sin, slots, tables, contexts, queries, _ = inputs
        y, summed = self.kernel(
            x,
            x if self.first else residual,
            *self.weights,
            cos,
            sin,
            slots,
            tables,
            contexts,
            queries,
            key_cache,
            value_cache,
            *self.attributes,
        )
        return y, summed


class MlpSublayer(nn.Cell):
    """Norm and feed-forward block of their own."""

    def __init__(self, builder: LayerBuilder, layer: str, config: DecoderConfig) -> None:
        super().__init__()
        hidden, epsilon = config.hidden_size, config.norm_epsilon
        self.norm = RmsNorm(builder, f"{layer}.post_attention_layernorm", hidden, epsilon)
        self.mlp = GatedMLP(
            builder,
            f"{layer}.mlp",
            hidden,
            config.intermediate_size,
            bias=config.mlp_bias,
            one_tensor=config.one_gate_up_tensor,
        )

    def construct(self, x: Tensor, residual: Tensor, slots: Tensor | None) -> tuple[Tensor, Tensor]:
        """x and residual [T, hidden], adapter slots i32 [T] -> x and residual."""
        x, residual = self.norm(x, residual)
        return self.mlp(x, slots), residual


class FusedMlpSublayer(nn.Cell):
    """The same as one node. Its tensors in call order: ops/core/sublayers.h."""

    def __init__(self, builder: LayerBuilder, layer: str, config: DecoderConfig) -> None:
        super().__init__()
        self.weights = ParameterTuple(mlp_weights(builder, layer, config))
        self.epsilon = Tensor(np.array([config.norm_epsilon], np.float32))
        self.kernel = custom_op("vmo_mlp_sublayer", len(self.weights) + 3, num_outputs=2)

    def construct(self, x: Tensor, residual: Tensor, slots: None = None) -> tuple[Tensor, Tensor]:
        """x and residual [T, hidden] -> the same two; not for models with adapters."""
        y, summed = self.kernel(x, residual, *self.weights, self.epsilon)
        return y, summed
