# SPDX-License-Identifier: Apache-2.0
"""All decoder layers of a model as one CPU node.

Between two kernels that run for long the framework finds its caches cold at every node:
docs/architecture.md.
"""

from __future__ import annotations

from mindspore import ParameterTuple, Tensor, nn

from vllm_mindspore.device.custom_ops import custom_op
from vllm_mindspore.model_executor.layers.attention import PagedInputs, kernel_attributes
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.layers.sublayers import (
    attention_weights,
    has_fused_attention,
    has_fused_mlp,
    mlp_weights,
)
from vllm_mindspore.model_executor.models.config import DecoderConfig

# x, cos, sin, slot mapping, block tables, context and query lengths, two attribute tensors.
_SHARED = 9


def has_fused_layers(builder: LayerBuilder, config: DecoderConfig) -> bool:
    """Whether layers that are nothing but their two halves can be one node."""
    return has_fused_attention(builder) and has_fused_mlp(builder, config)


class FusedLayers(nn.Cell):
    """Its tensors in call order: ops/core/decoder_layers.h."""

    def __init__(self, builder: LayerBuilder, layers: list[str], config: DecoderConfig) -> None:
        super().__init__()
        weights = []
        for layer in layers:
            weights += attention_weights(builder, layer, config)
            weights += mlp_weights(builder, layer, config)
        self.weights = ParameterTuple(weights)
        self.attributes = kernel_attributes(
            builder, config.attention, whole=True, input_epsilon=config.norm_epsilon
        )
        inputs = _SHARED + len(weights) + 2 * len(layers)
        self.kernel = custom_op("vmo_decoder_layers", inputs, num_outputs=2)

    def construct(
        self,
        x: Tensor,
        inputs: PagedInputs,
        key_caches: list[Tensor],
        value_caches: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """x [T, hidden] -> what the last layer adds to the residual, and that residual."""
        _, cos, sin, slots, tables, contexts, queries, _ = inputs
        y, residual = self.kernel(
            x,
            cos,
            sin,
            slots,
            tables,
            contexts,
            queries,
            *self.attributes,
            *self.weights,
            *key_caches,
            *value_caches,
        )
        return y, residual
