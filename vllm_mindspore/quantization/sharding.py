# SPDX-License-Identifier: Apache-2.0
"""Which part of each tensor of a linear layer one of several ranks has, float or quantized.

Of column-parallel layers (q, k, v, gate, up) the outputs N are divided, of row-parallel ones (o,
down) the inputs K; partial results of the latter are added up, so what is added to them is on the
first rank alone. Embedding and head are divided along the vocabulary.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vllm_mindspore.quantization.description import WEIGHT_INT4, Tool

Array = npt.NDArray[np.generic]


class Split(enum.Enum):
    """What is divided: the letter of its axis in `_axes`."""

    COLUMN = "N"
    ROW = "K"


_SPLITS = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "qkv_proj"), Split.COLUMN),
    **dict.fromkeys(("gate_proj", "up_proj", "gate_up_proj"), Split.COLUMN),
    **dict.fromkeys(("o_proj", "down_proj"), Split.ROW),
}
_INPUT = ("input_scale", "input_offset", "input_zero_point", "beta", "smooth_scale")
_WEIGHT_SCALES = ("weight_scale", "weight_offset", "weight_zero_point")
_OUTPUT = ("deq_scale", "quant_bias", "bias", "kv_cache_scale", "kv_cache_offset")
ADDED_ONCE = ("quant_bias", "bias")
"""Tensors of row-parallel layers that are added to their sums, so that one rank has them."""
_VOCABULARY_STEP = 64


@dataclass(frozen=True)
class Rank:
    """One of `count` ranks."""

    index: int
    count: int

    def __post_init__(self) -> None:
        """Raises ValueError for an index that is none."""
        if not 0 <= self.index < self.count:
            raise ValueError(f"expected a rank of 0 to {self.count - 1}, found {self.index}")


def split_of(module: str) -> Split | None:
    """How linear layer `module` (its name ends like a layer of a Hugging Face model) is divided;
    None for what every rank has whole, and for embedding and head (`vocabulary_rows`)."""
    return _SPLITS.get(module.rpartition(".")[2])


def of_kv_heads(rank: Rank, kv_heads: int) -> Rank:
    """Which part of the key and value projections a rank has: ranks that outnumber the heads share
    them, each head among neighbours."""
    if kv_heads >= rank.count:
        return rank
    return Rank(rank.index * kv_heads // rank.count, kv_heads)


def padded_vocabulary(vocab_size: int, count: int) -> int:
    """Rows of embedding and head on all ranks together: a multiple of 64 that `count` divides.

    Rows behind the vocabulary are zeros.
    """
    step = math.lcm(_VOCABULARY_STEP, count)
    return -(-vocab_size // step) * step


def vocabulary_rows(vocab_size: int, count: int) -> int:
    """Rows of embedding and head on each of `count` ranks; one rank alone has no padding."""
    return vocab_size if count == 1 else padded_vocabulary(vocab_size, count) // count


def shard(values: Array, part: str, kind: str, tool: Tool, split: Split, rank: Rank) -> Array:
    """The part of tensor `part` (its last name) of a layer of type `kind` that a rank has.

    Parts of all ranks, in order, are the whole where an axis is divided; tensors without that axis
    are whole on every rank, but biases of row-parallel layers are zeros on all but the first.

    Raises:
        ValueError: a name that no layer has, or an axis that the ranks do not divide evenly.
    """
    if split is Split.ROW and is_added_once(part):
        return values if rank.index == 0 else np.zeros_like(values)
    axes = axes_of(values.shape, part, kind, tool)
    if split.value not in axes:
        return values
    axis = axes.index(split.value)
    size = values.shape[axis]
    if size % rank.count:
        raise ValueError(
            f"{part} of a {kind} layer has {size} elements along {split.value}, which "
            f"{rank.count} ranks do not divide evenly"
        )
    width = size // rank.count
    return values[(slice(None),) * axis + (slice(rank.index * width, (rank.index + 1) * width),)]


def is_of_input(part: str) -> bool:
    """Whether a tensor belongs to the input of a layer, and so to all layers of that input."""
    return part in _INPUT


def is_added_once(part: str) -> bool:
    """Whether a tensor of a row-parallel layer is added to its sums, so that one rank has it."""
    return part in ADDED_ONCE


def axes_of(shape: Sequence[int], part: str, kind: str, tool: Tool) -> str:
    """A letter per axis of tensor `part`: N outputs, K inputs or groups of them, 1 for one number
    for all.

    Raises:
        ValueError: a name that no layer has.
    """
    if part == "weight":
        return "KN" if kind == WEIGHT_INT4 and tool is Tool.GOLDEN_STICK else "NK"
    if part in _INPUT:
        return "K" if math.prod(shape) > 1 else "1"
    if part in _OUTPUT:
        return "".join("N" if size > 1 else "1" for size in shape)
    if part not in _WEIGHT_SCALES:
        raise ValueError(f"linear layers have no tensor named {part!r:.80}")
    if len(shape) == 1 or shape[1] == 1:
        return "N1"[: len(shape)]
    return "KN" if tool is Tool.GOLDEN_STICK else "NK"
