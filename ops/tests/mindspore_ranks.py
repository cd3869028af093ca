# SPDX-License-Identifier: Apache-2.0
"""Networks of collective primitives; MindSpore reads their source, and only processes that run it
import this."""

from __future__ import annotations

from mindspore import Tensor, nn, ops


class Gathered(ops.AllGather):
    """AllGather in a group that MindSpore does not know: it has to be told the number of ranks."""

    def __init__(self, count: int) -> None:
        ops.PrimitiveWithInfer.__init__(self, "AllGather")
        self.rank_size = count
        for name, value in (("rank_size", count), ("group", "ranks"), ("fusion", 0)):
            self.add_prim_attr(name, value)


class ReduceAndGather(nn.Cell):
    """Both, of shapes that are known."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.reduce = ops.AllReduce()
        self.gather = Gathered(count)

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [T, N] -> the sum [T, N], all [count * T, N]."""
        return self.reduce(x), self.gather(x)


class Reduced(nn.Cell):
    """AllReduce between two other operations."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = ops.AllReduce()

    def construct(self, x: Tensor) -> Tensor:
        """x [T, N] -> 2 * the sum of x / 2."""
        return self.reduce(x * 0.5) * 2
