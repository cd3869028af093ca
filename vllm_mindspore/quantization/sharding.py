# SPDX-License-Identifier: Apache-2.0
"""Which part of each tensor of a quantized linear layer one of several ranks has.

Of column-parallel layers (q, k, v, gate, up) the outputs N are divided, of row-parallel ones (o,
down) the inputs K; partial results of the latter are added up, so what is added to them is on the
first rank alone.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vllm_mindspore.quantization.description import WEIGHT_INT4, Tool

Array = npt.NDArray[np.generic]


class Split(enum.Enum):
    """What is divided: the letter of its axis in `_axes`."""

    COLUMN = "N"
    ROW = "K"


_INPUT = ("input_scale", "input_offset", "beta", "smooth_scale")
_WEIGHT_SCALES = ("weight_scale", "weight_offset")
_OUTPUT = ("deq_scale", "quant_bias", "bias", "kv_cache_scale", "kv_cache_offset")
_ADDED_ONCE = ("quant_bias", "bias")


@dataclass(frozen=True)
class Rank:
    """One of `count` ranks."""

    index: int
    count: int

    def __post_init__(self) -> None:
        """Raises ValueError for an index that is none."""
        if not 0 <= self.index < self.count:
            raise ValueError(f"expected a rank of 0 to {self.count - 1}, found {self.index}")


def shard(values: Array, part: str, kind: str, tool: Tool, split: Split, rank: Rank) -> Array:
    """The part of tensor `part` (its last name) of a layer of type `kind` that a rank has.

    Parts of all ranks, in order, are the whole where an axis is divided; tensors without that axis
    are whole on every rank, but biases of row-parallel layers are zeros on all but the first.

    Raises:
        ValueError: a name that no layer has, or an axis that the ranks do not divide evenly.
    """
    if split is Split.ROW and part in _ADDED_ONCE:
        return values if rank.index == 0 else np.zeros_like(values)
    axes = _axes(values, part, kind, tool)
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


def _axes(values: Array, part: str, kind: str, tool: Tool) -> str:
    """A letter per axis: N outputs, K inputs or groups of them, 1 for one number for all."""
    if part == "weight":
        return "KN" if kind == WEIGHT_INT4 else "NK"
    if part in _INPUT:
        return "K" if values.size > 1 else "1"
    if part in _OUTPUT:
        return "N"
    if part not in _WEIGHT_SCALES:
        raise ValueError(f"quantized layers have no tensor named {part!r:.80}")
    if values.ndim == 1 or values.shape[1] == 1:
        return "N1"[: values.ndim]
    return "KN" if tool is Tool.GOLDEN_STICK else "NK"
