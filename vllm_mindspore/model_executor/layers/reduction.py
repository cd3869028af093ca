# SPDX-License-Identifier: Apache-2.0
"""Sums over the ranks of a tensor-parallel group, as MindSpore's AllReduce.

Fused nodes add up by themselves (ops/core/sublayers.h); this is for layers of their own.
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from vllm_mindspore.model_executor.layers.build import LayerBuilder


def over_ranks(builder: LayerBuilder, linear: nn.Cell) -> nn.Cell:
    """The layer, whose outputs are this rank's part of sums, with the sums as outputs."""
    return linear if builder.rank.count == 1 else Reduced(linear)


class Reduced(nn.Cell):
    """A row-parallel linear layer."""

    def __init__(self, linear: nn.Cell) -> None:
        super().__init__()
        self.linear = linear
        self.reduce = ops.AllReduce()

    def construct(self, x: Tensor, slots: None = None) -> Tensor:
        """x [T, part of in_features] -> [T, out_features]; not for models with adapters."""
        return self.reduce(self.linear(x, slots))
