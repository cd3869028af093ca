# SPDX-License-Identifier: Apache-2.0
"""Llama and what shares its decoder (https://arxiv.org/abs/2302.13971)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mindspore
from mindspore import ParameterTuple, Tensor, nn, ops

from vllm_mindspore import bridge
from vllm_mindspore.device.custom_ops import custom_op
from vllm_mindspore.model_executor.layers.attention import PagedInputs
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.layers.embedding import build_embedding
from vllm_mindspore.model_executor.layers.fused_layers import FusedLayers, has_fused_layers
from vllm_mindspore.model_executor.layers.layernorm import RmsNorm
from vllm_mindspore.model_executor.layers.linear import build_linear
from vllm_mindspore.model_executor.layers.rotary_embedding import rotary_tables
from vllm_mindspore.model_executor.layers.sublayers import (
    build_attention_sublayer,
    build_mlp_sublayer,
)
from vllm_mindspore.model_executor.models.config import DecoderConfig, decoder_config
from vllm_mindspore.model_executor.models.layout import UNUSED

HEAD = "lm_head.weight"


class DecoderLayer(nn.Cell):
    """Attention, then the feed-forward block."""

    def __init__(
        self, builder: LayerBuilder, name: str, config: DecoderConfig, *, first: bool
    ) -> None:
        super().__init__()
        self.attention = build_attention_sublayer(builder, name, config, first=first)
        self.mlp = build_mlp_sublayer(builder, name, config)

    def construct(
        self,
        x: Tensor,
        residual: Tensor | None,
        inputs: PagedInputs,
        key_cache: Tensor,
        value_cache: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """x and residual [T, hidden] -> the same two for the next layer."""
        x, residual = self.attention(x, residual, inputs, key_cache, value_cache)
        x, residual = self.mlp(x, residual, inputs[-1])
        return x, residual


class DecoderLayers(nn.Cell):
    """The layers one after the other."""

    def __init__(
        self,
        builder: LayerBuilder,
        names: list[str],
        config: DecoderConfig,
        layer: type[DecoderLayer],
    ) -> None:
        super().__init__()
        self.layers = nn.CellList(
            [layer(builder, name, config, first=name == names[0]) for name in names]
        )
        self.num_layers = len(names)

    def construct(
        self,
        x: Tensor,
        inputs: PagedInputs,
        key_caches: list[Tensor],
        value_caches: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """x [T, hidden] -> what the last layer adds to the residual, and that residual."""
        residual = None
        for index in range(self.num_layers):
            x, residual = self.layers[index](
                x, residual, inputs, key_caches[index], value_caches[index]
            )
        return x, residual


def build_layers(
    builder: LayerBuilder, config: DecoderConfig, layer: type[DecoderLayer]
) -> nn.Cell:
    """All layers, as one node where the kernels can."""
    names = [f"model.layers.{index}" for index in range(config.num_layers)]
    if layer is DecoderLayer and has_fused_layers(builder, config):
        return FusedLayers(builder, names, config)
    return DecoderLayers(builder, names, config, layer)


class Decoder(nn.Cell):
    """Token ids to hidden states, with the paged caches of every layer written on the way."""

    def __init__(
        self,
        builder: LayerBuilder,
        config: DecoderConfig,
        max_positions: int,
        layer: type[DecoderLayer],
    ) -> None:
        super().__init__()
        self.embed = build_embedding(
            builder, "model.embed_tokens", config.vocab_size, config.hidden_size
        )
        cos, sin = rotary_tables(config.rotary, max_positions)
        self.table_bytes = cos.nbytes + sin.nbytes
        dtype = None if builder.fused else builder.source.dtype
        self.cos = bridge.constant("rotary.cos", cos, dtype)
        self.sin = bridge.constant("rotary.sin", sin, dtype)
        self.layers = build_layers(builder, config, layer)
        self.norm = RmsNorm(builder, "model.norm", config.hidden_size, config.norm_epsilon)
        self.gather = ops.Gather()

    def construct(
        self,
        token_ids: Tensor,
        positions: Tensor,
        slot_mapping: Tensor,
        block_tables: Tensor,
        context_lens: Tensor,
        query_lens: Tensor,
        key_caches: list[Tensor],
        value_caches: list[Tensor],
        adapters: Tensor | None = None,
    ) -> Tensor:
        """Step inputs (see worker.input_batch.StepInputs) -> normalised hidden [T, hidden]."""
        x = self.embed(token_ids)
        cos = self.gather(self.cos, positions, 0)
        sin = self.gather(self.sin, positions, 0)
        inputs = (
            positions,
            cos,
            sin,
            slot_mapping,
            block_tables,
            context_lens,
            query_lens,
            adapters,
        )
        x, residual = self.layers(x, inputs, key_caches, value_caches)
        return self.norm(x, residual)[0]


class FusedLogits(nn.Cell):
    """Row selection, projection and conversion to float32 in one node."""

    def __init__(self, builder: LayerBuilder, name: str, config: DecoderConfig) -> None:
        super().__init__()
        names, sizes = [name.removesuffix(".weight")], [config.vocab_size]
        weights = builder.projection(names, config.hidden_size, sizes, bias=False)
        self.weights = ParameterTuple(weights)
        self.kernel = custom_op("vmo_lm_head", 2 + len(weights))

    def construct(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """hidden [T, hidden], rows i32 [R] -> fp32 [R, vocab]."""
        return self.kernel(hidden, rows, *self.weights)


class ChainLogits(nn.Cell):
    """The same in primitives."""

    def __init__(self, builder: LayerBuilder, name: str, config: DecoderConfig) -> None:
        super().__init__()
        plain = replace(builder, adapters=None)  # there are none beside the head
        sizes = config.hidden_size, config.vocab_size
        self.head = build_linear(plain, name.removesuffix(".weight"), *sizes)
        self.gather = ops.Gather()
        self.cast = ops.Cast()

    def construct(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """hidden [T, hidden], rows i32 [R] -> fp32 [R, vocab]."""
        return self.cast(self.head(self.gather(hidden, rows, 0)), mindspore.float32)


class Llama:
    """LlamaForCausalLM: the decoder and its language model head."""

    layer: type[DecoderLayer] = DecoderLayer
    unused_tensors = UNUSED
    """Suffixes of checkpoint tensors that may be left over: they are recomputed here, or (the head
    of a model whose embeddings are tied, which some files repeat) read under another name."""

    def __init__(self, builder: LayerBuilder, hf_config: Any, max_positions: int) -> None:
        self._builder = builder
        self.config = decoder_config(hf_config).of_rank(builder.rank)
        self.decoder = Decoder(builder, self.config, max_positions, self.layer)
        tied = self.config.tied_embeddings
        self.head_name = "model.embed_tokens.weight" if tied else HEAD

    def build_logits(self) -> nn.Cell:
        """The language model head; not built for models that pool."""
        logits = FusedLogits if self._builder.fused else ChainLogits
        return logits(self._builder, self.head_name, self.config)
