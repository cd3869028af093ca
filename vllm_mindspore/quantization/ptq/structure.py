# SPDX-License-Identifier: Apache-2.0
"""What computes the inputs of a decoder's linear layers; which layers share one, says `layout`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vllm_mindspore.model_executor.models.config import DecoderConfig
from vllm_mindspore.model_executor.models.layout import HEAD, Linear, layer_linears

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
        linears: those layers.
        norm: the norm whose weight multiplies the input's channels, or None.
        rows: the linear layer whose rows do, or None.
    """

    linears: tuple[Linear, ...]
    norm: str | None = None
    rows: Rows | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Their modules."""
        return tuple(linear.name for linear in self.linears)

    @property
    def in_features(self) -> int:
        """K."""
        return self.linears[0].in_features

    @property
    def bias(self) -> bool:
        """Whether they have biases."""
        return self.linears[0].bias

    def parts(self) -> list[tuple[str, int]]:
        """Name and N of each."""
        return [(linear.name, linear.out_features) for linear in self.linears]


def layer_name(index: int) -> str:
    """The module of a decoder layer."""
    return f"model.layers.{index}"


def attention_name(index: int) -> str:
    """The module of a decoder layer's attention."""
    return f"{layer_name(index)}.self_attn"


def layer_groups(config: DecoderConfig, index: int) -> list[Group]:
    """The linear layers of one decoder layer, in the order in which they are computed."""
    layer, attention = layer_name(index), config.attention
    qkv, output, gate_up, down = layer_linears(layer, config)
    repeats = attention.num_heads // attention.num_kv_heads
    values = Rows(qkv[-1].name, 0, attention.kv_size, attention.head_dim, repeats)
    # One tensor holds the rows of gate before those of up.
    first = gate_up[-1].out_features - config.intermediate_size
    up = Rows(gate_up[-1].name, first, config.intermediate_size)
    return [
        Group(qkv, norm=f"{layer}.input_layernorm.weight"),
        Group(output, rows=values),
        Group(gate_up, norm=f"{layer}.post_attention_layernorm.weight"),
        Group(down, rows=up),
    ]


def head_group(config: DecoderConfig) -> Group:
    """The language model's head. Nothing before it can take up factors of its input: the head of a
    tied model is the embedding as well, and that of others is not worth a case of its own."""
    return Group((Linear(HEAD, config.hidden_size, config.vocab_size),))


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
