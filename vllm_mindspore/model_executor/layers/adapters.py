# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters (https://arxiv.org/abs/2106.09685) beside the linear layers of a model.

A token uses the adapter slot of its request, or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, mint, nn, ops

from vllm_mindspore import bridge
from vllm_mindspore.device.custom_ops import custom_op
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.model_loader.adapter_slots import SlotMemory


def build_adapters(
    builder: LayerBuilder, names: Sequence[str], in_features: int, out_features: Sequence[int]
) -> nn.Cell | None:
    """What adds the adapters of one to three projections `names` of the same input, if there may
    be any."""
    if builder.adapters is None:
        return None
    memory = builder.adapters.attach(names, in_features, out_features)
    cell = FusedAdapters if builder.fused else ChainAdapters
    return cell("+".join(names), memory)


def _follow(memory: SlotMemory, a: Parameter, b: Sequence[Parameter]) -> None:
    """Lets writers find the memory that the graph reads: MindSpore may move parameters."""
    memory.in_use(partial(bridge.to_torch, a), [partial(bridge.to_torch, part) for part in b])


class FusedAdapters(nn.Cell):
    """All of it in one CPU node."""

    def __init__(self, name: str, memory: SlotMemory) -> None:
        super().__init__()
        self.a = bridge.parameter(f"{name}.lora_a", memory.a.flatten(1, 2))
        parts = [bridge.parameter(f"{name}.lora_b.{i}", b) for i, b in enumerate(memory.b)]
        self.b = ParameterTuple(parts)
        _follow(memory, self.a, parts)
        self.kernel = custom_op(f"vmo_lora_{len(parts)}", 4 + len(parts))

    def construct(self, y: Tensor, x: Tensor, slots: Tensor) -> Tensor:
        """y [T, sum(out_features)], x [T, in_features], slots i32 [T] (-1: none) -> like y."""
        return self.kernel(y, x, slots, self.a, *self.b)


class ChainAdapters(nn.Cell):
    """The same in primitives: products with all slots, of which a token keeps its own."""

    def __init__(self, name: str, memory: SlotMemory) -> None:
        super().__init__()
        self.slots, self.parts, self.rank, inner = memory.a.shape
        self.a = bridge.parameter(f"{name}.lora_a", memory.a.view(-1, inner))
        flat = [b.view(-1, self.slots * self.rank) for b in memory.b]
        parts = [bridge.parameter(f"{name}.lora_b.{i}", b) for i, b in enumerate(flat)]
        self.b = ParameterTuple(parts)
        _follow(memory, self.a, parts)
        self.numbers = ms.Tensor(list(range(self.slots)), ms.int32)
        self.part_numbers = tuple(ms.Tensor(part, ms.int32) for part in range(self.parts))
        self.matmul = ops.MatMul(transpose_b=True)
        self.gather = ops.Gather()

    def construct(self, y: Tensor, x: Tensor, slots: Tensor) -> Tensor:
        """y [T, sum(out_features)], x [T, in_features], slots i32 [T] (-1: none) -> like y."""
        own = (slots.reshape(-1, 1) == self.numbers).astype(x.dtype)
        inner = self.matmul(x, self.a).reshape(-1, self.slots, self.parts, self.rank)
        inner = inner * own.reshape(-1, self.slots, 1, 1)
        delta = []
        for part in range(self.parts):
            down = self.gather(inner, self.part_numbers[part], 2).reshape(
                -1, self.slots * self.rank
            )
            delta.append(self.matmul(down, self.b[part]))
        return y + (mint.cat(delta, -1) if self.parts > 1 else delta[0])
