# SPDX-License-Identifier: Apache-2.0
"""Linear layers: y = x . W^T + b, with W [out_features, in_features] as checkpoints store it."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Parameter, ParameterTuple, Tensor, mint, nn, ops

from vllm_mindspore.device.custom_ops import custom_op
from vllm_mindspore.model_executor.layers.build import LayerBuilder


class Linear(nn.Cell):
    """One projection, without bias."""

    def __init__(
        self, builder: LayerBuilder, name: str, in_features: int, out_features: int
    ) -> None:
        super().__init__()
        self.weight = builder.source.take(f"{name}.weight", (out_features, in_features))
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor) -> Tensor:
        """x [T, in_features] -> [T, out_features]."""
        return self.matmul(x, self.weight)


class FusedLinear(nn.Cell):
    """Two or three projections of the same input in one node; outputs concatenated.

    The weights stay separate, so they remain mapped from the checkpoint file.
    """

    def __init__(
        self,
        builder: LayerBuilder,
        names: Sequence[str],
        in_features: int,
        out_features: Sequence[int],
        *,
        bias: bool,
    ) -> None:
        super().__init__()
        sizes = list(zip(names, out_features, strict=True))
        take = builder.source.take
        weights = [take(f"{name}.weight", (size, in_features)) for name, size in sizes]
        biases = [take(f"{name}.bias", (size,)) for name, size in sizes] if bias else []
        self.parameters = ParameterTuple(weights + biases)
        kernel = f"vmo_linear_bias_{len(sizes)}" if bias else f"vmo_linear_{len(sizes)}"
        self.linear = custom_op(kernel, 1 + len(self.parameters))

    def construct(self, x: Tensor) -> Tensor:
        """x [T, in_features] -> [T, sum(out_features)]."""
        return self.linear(x, *self.parameters)


class SplitLinear(nn.Cell):
    """Several projections of the same input as one MatMul and a split: the primitive chain."""

    def __init__(
        self,
        builder: LayerBuilder,
        names: Sequence[str],
        in_features: int,
        out_features: Sequence[int],
        *,
        bias: bool,
    ) -> None:
        super().__init__()
        merge = builder.source.take_merged
        self.weight = merge(
            [f"{name}.weight" for name in names], [(size, in_features) for size in out_features]
        )
        self.bias: Parameter | None = None
        if bias:
            self.bias = merge([f"{name}.bias" for name in names], [(s,) for s in out_features])
        self.sizes = tuple(out_features)
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor) -> tuple[Tensor, ...]:
        """x [T, in_features] -> one [T, size] tensor per projection."""
        y = self.matmul(x, self.weight)
        if self.bias is not None:
            y = y + self.bias
        parts: tuple[Tensor, ...] = mint.split(y, self.sizes, -1)
        return parts
