# SPDX-License-Identifier: Apache-2.0
"""Room for the LoRA adapters of one batch beside every linear layer of a model.

A slot that is not used, a layer that an adapter leaves out and what a smaller rank leaves over are
zero, and so add nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

Find = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class AdapterMatrices:
    """What an adapter adds to one linear layer: x . a^T . b^T."""

    a: torch.Tensor
    """[rank, in_features]"""
    b: torch.Tensor
    """[out_features, rank], scaled."""


class SlotMemory:
    """The slots of up to three linear layers that share their input; the graph reads them.

    Attributes:
        a: [slots, layers, rank, in_features], for whoever builds the graph.
        b: [out_features, slots, rank] of each layer, likewise.
    """

    def __init__(self, a: torch.Tensor, b: Sequence[torch.Tensor]) -> None:
        self.a = a
        self.b = tuple(b)
        self._find_a: Find = lambda: self.a
        self._find_b: Sequence[Find] = [partial(self.b.__getitem__, i) for i in range(len(b))]

    def in_use(self, a: Find, b: Sequence[Find]) -> None:
        """From now on `layer` asks these functions where a and b are, in any shape."""
        self._find_a, self._find_b = a, b

    def layer(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """a [slots, rank, in_features] and b [out_features, slots, rank] of one layer."""
        a = self._find_a().view(self.a.shape)
        return a[:, index], self._find_b[index]().view(self.b[index].shape)


class AdapterSlots:
    """The slots of all linear layers of a model."""

    def __init__(self, count: int, rank: int, dtype: torch.dtype) -> None:
        self.count = count
        self.rank = rank
        self.num_bytes = 0
        self._dtype = dtype
        self._layers: dict[str, tuple[SlotMemory, int]] = {}

    def attach(
        self, names: Sequence[str], in_features: int, out_features: Sequence[int]
    ) -> SlotMemory:
        """Zeroed slots for the layers `names`."""
        a = torch.zeros(self.count, len(names), self.rank, in_features, dtype=self._dtype)
        b = [torch.zeros(n, self.count, self.rank, dtype=self._dtype) for n in out_features]
        memory = SlotMemory(a, b)
        for index, name in enumerate(names):
            self._layers[name] = (memory, index)
        self.num_bytes += a.nbytes + sum(part.nbytes for part in b)
        return memory

    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """(in_features, out_features) of each linear layer by name."""
        return {
            name: (memory.a.shape[3], memory.b[index].shape[0])
            for name, (memory, index) in self._layers.items()
        }

    def write(self, slot: int, adapter: Mapping[str, AdapterMatrices]) -> None:
        """Puts an adapter, matrices that fit `shapes` and `rank` by layer, into a slot."""
        for name, (memory, index) in self._layers.items():
            a, b = memory.layer(index)
            a[slot].zero_()
            b[:, slot].zero_()
            if (matrices := adapter.get(name)) is not None:
                rank = matrices.a.shape[0]
                a[slot, :rank] = matrices.a
                b[:, slot, :rank] = matrices.b
