# SPDX-License-Identifier: Apache-2.0
"""The part of a whole model's tensors that one of several ranks has.

Column-parallel weights are rows of the file and stay mapped; row-parallel ones are copied once.
Folders that are stored rank by rank need none of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from vllm_mindspore.quantization.description import (
    WEIGHT_INT4,
    WEIGHT_INT8,
    Description,
    Tool,
)
from vllm_mindspore.quantization.sharding import (
    Rank,
    Split,
    axes_of,
    is_added_once,
    is_of_input,
    of_kv_heads,
    padded_vocabulary,
    split_of,
    vocabulary_rows,
)

Shape = tuple[int, ...]


class Division(Protocol):
    """How files hold what a rank asks for."""

    def whole_shapes(self, name: str, shapes: Sequence[Shape]) -> list[Shape]:
        """What tensor `name` may look like in the file if one of `shapes` is asked for."""

    def part(self, name: str, whole: torch.Tensor) -> torch.Tensor:
        """What is asked for, of the file's tensor."""


_VOCABULARY = ("embed_tokens", "lm_head")
_KV = ("k_proj", "v_proj")
_TWO_ABOVE_EACH_OTHER = "gate_up_proj"
_OUTPUTS, _INPUTS = Split.COLUMN.value, Split.ROW.value


@dataclass(frozen=True)
class Shards:
    """What rank `rank` has of a checkpoint with the names of the Hugging Face model.

    Attributes:
        rank: whose parts.
        vocab_size: of the whole model.
        kv_heads: of the whole model.
        description: how layers are quantized, for those that a description file speaks of.
    """

    rank: Rank
    vocab_size: int
    kv_heads: int
    description: Description | None = None

    def whole_shapes(self, name: str, shapes: Sequence[Shape]) -> list[Shape]:
        """What tensor `name` may look like in the file if this rank's part has one of `shapes`."""
        return [whole for shape in shapes for whole in self._whole_shapes(name, shape)]

    def part(self, name: str, whole: torch.Tensor) -> torch.Tensor:
        """This rank's part of tensor `name`, contiguous; a view where that is one piece of it."""
        module, _, part = name.rpartition(".")
        split = split_of(module)
        if split is Split.ROW and is_added_once(part):
            return whole if self.rank.index == 0 else torch.zeros_like(whole)
        axis = self._axis(module, part, tuple(whole.shape))
        if axis is None:
            return whole
        if split is None:
            return self._rows_of_vocabulary(whole, axis, self.vocab_size // whole.shape[axis])
        rank, pieces = self._rank_of(module), [whole]
        if module.endswith(_TWO_ABOVE_EACH_OTHER):
            pieces = list(whole.chunk(2, axis))
        width = pieces[0].shape[axis] // rank.count
        parts = [piece.narrow(axis, rank.index * width, width) for piece in pieces]
        return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts, axis)

    def _whole_shapes(self, name: str, shape: Shape) -> list[Shape]:
        module, _, part = name.rpartition(".")
        split, axis = split_of(module), self._axis(module, part, shape)
        if split is Split.ROW and axis is None and self._has_groups_behind(module, part, shape):
            # One scale per output may be that of the only group of inputs this rank has.
            return [shape, (shape[0], self.rank.count)]
        if axis is None or (split is Split.ROW and is_added_once(part)):
            return [shape]
        size = shape[axis] * self._rank_of(module).count
        if split is None:
            rows = vocabulary_rows(self.vocab_size, self.rank.count)
            size = self.vocab_size // (rows // shape[axis])  # outputs in one number of the file
        return [(*shape[:axis], size, *shape[axis + 1 :])]

    def _axis(self, module: str, part: str, shape: Shape) -> int | None:
        """Which axis of a tensor is divided."""
        split, divided = split_of(module), _OUTPUTS
        if split is Split.ROW:
            divided = _INPUTS
        elif split is None and not module.endswith(_VOCABULARY):
            return None
        tool = self.description.tool if self.description else Tool.MODELSLIM
        axis = axes_of(shape, part, self._kind(module), tool).find(divided)
        return None if axis < 0 else axis

    def _has_groups_behind(self, module: str, part: str, shape: Shape) -> bool:
        """Whether it may be a scale per group of inputs, groups being the second axis."""
        turned = self.description is not None and self.description.tool is Tool.GOLDEN_STICK
        scales = part.startswith("weight_") and len(shape) == 2
        return scales and not turned and self._kind(module) in (WEIGHT_INT8, WEIGHT_INT4)

    def _kind(self, module: str) -> str:
        types = self.description.types if self.description else {}
        return types.get(f"{module}.weight", "")

    def _rank_of(self, module: str) -> Rank:
        return of_kv_heads(self.rank, self.kv_heads) if module.endswith(_KV) else self.rank

    def _rows_of_vocabulary(self, whole: torch.Tensor, axis: int, packed: int) -> torch.Tensor:
        """Zeros behind the last word."""
        rows = vocabulary_rows(self.vocab_size, self.rank.count) // packed
        start = min(self.rank.index * rows, whole.shape[axis])
        count = min(rows, whole.shape[axis] - start)
        found = whole.narrow(axis, start, count)
        if count == rows:
            return found.contiguous()
        missing = list(whole.shape)
        missing[axis] = rows - count
        return torch.cat([found, whole.new_zeros(missing)], axis)


@dataclass(frozen=True)
class PaddedVocabulary:
    """Files that were made for one rank and fill the vocabulary up with zeros.

    Streams of compressed heads and their indexes have no rows and stay whole.

    Attributes:
        vocab_size: of the model, which has no such rows.
    """

    vocab_size: int

    def whole_shapes(self, name: str, shapes: Sequence[Shape]) -> list[Shape]:
        """Filled up, or as asked for."""
        if not self._has_rows(name):
            return list(shapes)
        padded = padded_vocabulary(self.vocab_size, 1)
        filled = [(padded, *shape[1:]) for shape in shapes if shape[0] == self.vocab_size]
        return list(dict.fromkeys([*filled, *shapes]))

    def part(self, name: str, whole: torch.Tensor) -> torch.Tensor:
        """The rows of the vocabulary, mapped."""
        coded = whole.dim() == 1 and whole.dtype == torch.int8
        filled = self._has_rows(name) and not coded and whole.shape[0] > self.vocab_size
        return whole.narrow(0, 0, self.vocab_size) if filled else whole

    def _has_rows(self, name: str) -> bool:
        module, _, part = name.rpartition(".")
        return module.endswith(_VOCABULARY) and not is_of_input(part)
