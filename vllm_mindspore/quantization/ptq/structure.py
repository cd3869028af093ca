# SPDX-License-Identifier: Apache-2.0
"""Which linear layers of a decoder share an input, and what computes that input."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vllm_mindspore.model_executor.models.config import DecoderConfig

HEAD = "lm_head"

# Last names of Golden Stick's older networks, which policies of users still say.
_LEGACY_NAMES = {
    "q_proj": "wq",
    "k_proj": "wk",
    "v_proj": "wv",
    "o_proj": "wo",
    "gate_proj": "w1",
    "down_proj": "w2",
    "up_proj": "w3",
}


@dataclass(frozen=True)
class Rows:
    """The rows of a linear layer that compute an input, one per channel but for grouped heads.

    Attributes:
        name: the linear layer.
        start: its first such row.
        count: how many.
        head_dim: channels of a head.
        repeats: heads of the input that one head of these rows feeds.
    """

    name: str
    start: int
    count: int
    head_dim: int = 1
    repeats: int = 1


@dataclass(frozen=True)
class Group:
    """Linear layers that are computed together, from one input.

    Attributes:
        names: their modules.
        in_features: K.
        out_features: N of each.
        bias: whether they have biases.
        norm: the norm whose weight multiplies the input's channels, or None.
        rows: the linear layer whose rows do, or None.
    """

    names: tuple[str, ...]
    in_features: int
    out_features: tuple[int, ...]
    bias: bool
    norm: str | None = None
    rows: Rows | None = None

    def parts(self) -> list[tuple[str, int]]:
        """Name and N of each."""
        return list(zip(self.names, self.out_features, strict=True))


def layer_name(index: int) -> str:
    """The module of a decoder layer."""
    return f"model.layers.{index}"


def attention_name(index: int) -> str:
    """The module of a decoder layer's attention."""
    return f"{layer_name(index)}.self_attn"


def layer_groups(config: DecoderConfig, index: int) -> list[Group]:
    """The linear layers of one decoder layer, in the order in which they are computed."""
    layer = layer_name(index)
    attention, mlp = config.attention, f"{layer}.mlp"
    hidden, inner, block = config.hidden_size, config.intermediate_size, f"{layer}.self_attn"
    query, keys = attention.query_size, attention.kv_size
    repeats = attention.num_heads // attention.num_kv_heads
    values = Rows(f"{block}.v_proj", 0, keys, attention.head_dim, repeats)
    qkv = tuple(f"{block}.{name}_proj" for name in "qkv")
    return [
        Group(
            qkv, hidden, (query, keys, keys), attention.bias, norm=f"{layer}.input_layernorm.weight"
        ),
        Group((f"{block}.o_proj",), query, (hidden,), attention.output_bias, rows=values),
        _gate_up(config, mlp, f"{layer}.post_attention_layernorm.weight"),
        Group((f"{mlp}.down_proj",), inner, (hidden,), config.mlp_bias, rows=_up(config, mlp)),
    ]


def head_group(config: DecoderConfig) -> Group:
    """The language model's head. Nothing before it can take up factors of its input: the head of a
    tied model is the embedding as well, and that of others is not worth a case of its own."""
    return Group((HEAD,), config.hidden_size, (config.vocab_size,), bias=False)


def all_groups(config: DecoderConfig, *, head: bool) -> list[Group]:
    """Those of every decoder layer, and of the head if asked for."""
    found = [group for index in range(config.num_layers) for group in layer_groups(config, index)]
    return [*found, head_group(config)] if head else found


def contains(part: str, name: str) -> bool:
    """Whether a module's name, or its older one (`down_proj` was `w2`), has a part."""
    return any(part in spelling for spelling in _spellings(name))


def matches(pattern: re.Pattern[str], name: str) -> bool:
    """Whether a pattern matches a module's name, or its older one, from the start."""
    return any(pattern.match(spelling) for spelling in _spellings(name))


def _spellings(name: str) -> tuple[str, str]:
    parent, dot, last = name.rpartition(".")
    return name, f"{parent}{dot}{_LEGACY_NAMES.get(last, last)}"


def _gate_up(config: DecoderConfig, mlp: str, norm: str) -> Group:
    hidden, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
    if config.one_gate_up_tensor:
        return Group((f"{mlp}.gate_up_proj",), hidden, (2 * inner,), bias, norm=norm)
    names = (f"{mlp}.gate_proj", f"{mlp}.up_proj")
    return Group(names, hidden, (inner, inner), bias, norm=norm)


def _up(config: DecoderConfig, mlp: str) -> Rows:
    inner = config.intermediate_size
    if config.one_gate_up_tensor:
        return Rows(f"{mlp}.gate_up_proj", inner, inner)
    return Rows(f"{mlp}.up_proj", 0, inner)
