# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters (https://arxiv.org/abs/2106.09685) beside the linear layers of a model.

Every linear layer has room for the adapters of one batch, its slots; a token uses the slot of its
request, or none. Unused room is zero, so that an adapter may leave out layers and have a smaller
rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mindspore
import torch
from mindspore import ParameterTuple, Tensor, mint, nn, ops

from vllm_mindspore import bridge
from vllm_mindspore.device.custom_ops import custom_op


@dataclass(frozen=True)
class AdapterMatrices:
    """What an adapter adds to one linear layer: x . a^T . b^T."""

    a: torch.Tensor
    """[rank, in_features]"""
    b: torch.Tensor
    """[out_features, rank], scaled."""


@dataclass(frozen=True)
class _Room:
    """Views of one linear layer's part of the memory that the graph reads."""

    a: torch.Tensor
    """[slots, rank, in_features]"""
    b: torch.Tensor
    """[out_features, slots, rank]"""


class LoraSlots:
    """Memory for the adapters of a batch in every linear layer that asks for it."""

    def __init__(self, count: int, rank: int, dtype: torch.dtype, *, fused: bool) -> None:
        self.count = count
        self.rank = rank
        self.num_bytes = 0
        self._dtype = dtype
        self._fused = fused
        self._rooms: dict[str, _Room] = {}

    def attach(
        self, names: Sequence[str], in_features: int, out_features: Sequence[int]
    ) -> nn.Cell:
        """A cell that adds the adapters of one to three projections `names` of the same input."""
        a = torch.zeros(self.count, len(names), self.rank, in_features, dtype=self._dtype)
        b = [torch.zeros(n, self.count, self.rank, dtype=self._dtype) for n in out_features]
        for index, name in enumerate(names):
            self._rooms[name] = _Room(a[:, index], b[index])
        self.num_bytes += a.nbytes + sum(part.nbytes for part in b)
        cell = FusedLora if self._fused else ChainLora
        return cell("+".join(names), a, b)

    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """(in_features, out_features) of each linear layer by name."""
        return {name: (room.a.shape[2], room.b.shape[0]) for name, room in self._rooms.items()}

    def write(self, slot: int, adapter: Mapping[str, AdapterMatrices]) -> None:
        """Puts an adapter (linear layer -> matrices that fit `shapes` and `rank`) into a slot."""
        for name, room in self._rooms.items():
            room.a[slot].zero_()
            room.b[:, slot].zero_()
            if (matrices := adapter.get(name)) is not None:
                rank = matrices.a.shape[0]
                room.a[slot, :rank] = matrices.a
                room.b[:, slot, :rank] = matrices.b


class FusedLora(nn.Cell):
    """All of it in one CPU node."""

    def __init__(self, name: str, a: torch.Tensor, b: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.a = bridge.parameter(f"{name}.lora_a", a.flatten(1, 2))
        parts = [bridge.parameter(f"{name}.lora_b.{i}", part) for i, part in enumerate(b)]
        self.b = ParameterTuple(parts)
        self.kernel = custom_op(f"vmo_lora_{len(b)}", 4 + len(b))

    def construct(self, y: Tensor, x: Tensor, slots: Tensor) -> Tensor:
        """y [T, sum(out_features)], x [T, in_features], slots i32 [T] (-1: none) -> like y."""
        return self.kernel(y, x, slots, self.a, *self.b)


class ChainLora(nn.Cell):
    """The same in primitives: products with all slots, of which a token keeps its own."""

    def __init__(self, name: str, a: torch.Tensor, b: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.slots, self.parts, self.rank, inner = a.shape
        self.a = bridge.parameter(f"{name}.lora_a", a.view(-1, inner))
        flat = [part.view(-1, self.slots * self.rank) for part in b]
        parts = [bridge.parameter(f"{name}.lora_b.{i}", part) for i, part in enumerate(flat)]
        self.b = ParameterTuple(parts)
        self.numbers = mindspore.Tensor(list(range(self.slots)), mindspore.int32)
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, y: Tensor, x: Tensor, slots: Tensor) -> Tensor:
        """y [T, sum(out_features)], x [T, in_features], slots i32 [T] (-1: none) -> like y."""
        own = (slots.reshape(-1, 1) == self.numbers).astype(x.dtype)
        inner = self.matmul(x, self.a).reshape(-1, self.slots, self.parts, self.rank)
        inner = inner * own.reshape(-1, self.slots, 1, 1)
        delta = []
        for index in range(self.parts):
            part = inner[:, :, index].reshape(-1, self.slots * self.rank)
            delta.append(self.matmul(part, self.b[index]))
        return y + (mint.cat(delta, -1) if self.parts > 1 else delta[0])
