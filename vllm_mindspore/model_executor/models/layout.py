# SPDX-License-Identifier: Apache-2.0
"""Which tensors the checkpoint of a decoder has, without building it; imports no MindSpore.

What models really take is decided where their layers are made; `tests` hold both together.
"""

from __future__ import annotations

from dataclasses import dataclass

from vllm_mindspore.model_executor.models.config import DecoderConfig
from vllm_mindspore.quantization.sparse_description import fused_name

DECODER_PREFIX = "model."
"""Of the names of a decoder in a whole model."""

HEAD = "lm_head"
_EMBEDDING = f"{DECODER_PREFIX}embed_tokens"
_NORMS = ("input_layernorm", "post_attention_layernorm")
_NORMS_BEHIND = {"glm4": ("post_self_attn_layernorm", "post_mlp_layernorm")}

UNUSED = (".rotary_emb.inv_freq", "lm_head.weight")
"""Ends of names that files may have besides."""


@dataclass(frozen=True)
class Linear:
    """A linear layer: weight [out_features, in_features], maybe a bias."""

    name: str
    in_features: int
    out_features: int
    bias: bool = False


@dataclass(frozen=True)
class Layout:
    """The tensors of one model.

    Attributes:
        linears: layers that may be quantized; those of one tuple have the same input.
        floats: name -> shape of all other tensors.
    """

    linears: tuple[tuple[Linear, ...], ...]
    floats: dict[str, tuple[int, ...]]


def layout_of(model_type: str, config: DecoderConfig) -> Layout:
    """That of a model of this type and shape."""
    hidden = config.hidden_size
    floats: dict[str, tuple[int, ...]] = {
        f"{_EMBEDDING}.weight": (config.vocab_size, hidden),
        f"{DECODER_PREFIX}norm.weight": (hidden,),
    }
    linears: list[tuple[Linear, ...]] = []
    for index in range(config.num_layers):
        name = f"{DECODER_PREFIX}layers.{index}"
        linears += layer_linears(name, config)
        norms = (*_NORMS, *_NORMS_BEHIND.get(model_type, ()))
        floats |= {f"{name}.{norm}.weight": (hidden,) for norm in norms}
        if config.attention.qk_norm:
            head = (config.attention.head_dim,)
            floats |= {f"{name}.self_attn.{part}_norm.weight": head for part in "qk"}
    if not config.tied_embeddings:
        linears.append((Linear(HEAD, hidden, config.vocab_size),))
    return Layout(tuple(linears), floats)


def fused_sizes(layout: Layout) -> dict[str, tuple[int, int]]:
    """Module that holds the layers of one input where they are fused -> its K and N."""
    found = {}
    for together in layout.linears:
        names = [linear.name for linear in together]
        size = sum(linear.out_features for linear in together)
        found[fused_name(names)] = (together[0].in_features, size)
    return found


def layer_linears(name: str, config: DecoderConfig) -> tuple[tuple[Linear, ...], ...]:
    """Those of decoder layer `name` in the order in which they are computed: query, key and value;
    the output; gate and up, or the one tensor that holds both; down."""
    attention, hidden, inner = config.attention, config.hidden_size, config.intermediate_size
    query, key = attention.query_size, attention.kv_size
    qkv = tuple(
        Linear(f"{name}.self_attn.{part}_proj", hidden, size, attention.bias)
        for part, size in (("q", query), ("k", key), ("v", key))
    )
    output = (Linear(f"{name}.self_attn.o_proj", query, hidden, attention.output_bias),)
    sizes = {"gate": inner, "up": inner}
    if config.one_gate_up_tensor:
        sizes = {"gate_up": 2 * inner}
    gate_up = tuple(
        Linear(f"{name}.mlp.{part}_proj", hidden, size, config.mlp_bias)
        for part, size in sizes.items()
    )
    return qkv, output, gate_up, (Linear(f"{name}.mlp.down_proj", inner, hidden, config.mlp_bias),)
