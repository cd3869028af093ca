# SPDX-License-Identifier: Apache-2.0
"""Linear layers: y = x . W^T + b, with W [out_features, in_features] as checkpoints store it."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Parameter, ParameterTuple, Tensor, mint, nn, ops

from vllm_mindspore.device.custom_ops import custom_op
from vllm_mindspore.model_executor.layers.adapters import build_adapters
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.layers.quantized_linear import QuantizedLinear
from vllm_mindspore.model_executor.layers.sparse_linear import SparseLinear
from vllm_mindspore.model_executor.layers.weight_only_linear import WeightOnlyLinear
from vllm_mindspore.quantization.schemes.base import LinearParameters


def build_linear(
    builder: LayerBuilder, name: str, in_features: int, out_features: int, *, bias: bool = False
) -> nn.Cell:
    """One projection with the builder's kernels."""
    if builder.fused or not builder.is_float([name]):
        return build_merged(builder, [name], in_features, [out_features], bias=bias)
    return Linear(builder, name, in_features, out_features, bias=bias)


def build_merged(
    builder: LayerBuilder,
    names: Sequence[str],
    in_features: int,
    out_features: Sequence[int],
    *,
    bias: bool,
) -> nn.Cell:
    """One to three projections of the same input with the builder's kernels; outputs
    concatenated."""
    if builder.fused:
        return FusedLinear(builder, names, in_features, out_features, bias=bias)
    if builder.is_float(names):
        return MergedLinear(builder, names, in_features, out_features, bias=bias)
    found = builder.linear(names, in_features, out_features, bias=bias)
    return _cell_of(found)(found, builder.source.dtype)


def _cell_of(
    found: LinearParameters,
) -> type[WeightOnlyLinear] | type[SparseLinear] | type[QuantizedLinear]:
    if found.weight_only:
        return WeightOnlyLinear
    return SparseLinear if found.indexes else QuantizedLinear


class Linear(nn.Cell):
    """One projection in primitives."""

    def __init__(
        self,
        builder: LayerBuilder,
        name: str,
        in_features: int,
        out_features: int,
        *,
        bias: bool = False,
    ) -> None:
        super().__init__()
        take = builder.source.take
        self.weight = take(f"{name}.weight", (out_features, in_features))
        self.bias: Parameter | None = take(f"{name}.bias", (out_features,)) if bias else None
        self.matmul = ops.MatMul(transpose_b=True)
        self.adapters = build_adapters(builder, [name], in_features, [out_features])

    def construct(self, x: Tensor, slots: Tensor | None = None) -> Tensor:
        """x [T, in_features], adapter slots i32 [T] -> [T, out_features]."""
        y = self.matmul(x, self.weight)
        if self.bias is not None:
            y = y + self.bias
        return y if self.adapters is None else self.adapters(y, x, slots)


class FusedLinear(nn.Cell):
    """One to three projections of the same input in one node; outputs concatenated.

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
        self.names = tuple(names)
        parameters = builder.projection(names, in_features, out_features, bias=bias)
        self.parameters = ParameterTuple(parameters)
        kernel = f"vmo_linear_bias_{len(names)}" if bias else f"vmo_linear_{len(names)}"
        self.linear = custom_op(kernel, 1 + len(self.parameters))
        self.adapters = build_adapters(builder, names, in_features, out_features)

    def construct(self, x: Tensor, slots: Tensor | None = None) -> Tensor:
        """x [T, in_features], adapter slots i32 [T] -> [T, sum(out_features)]."""
        y = self.linear(x, *self.parameters)
        return y if self.adapters is None else self.adapters(y, x, slots)


class MergedLinear(nn.Cell):
    """The same as one MatMul, the weights copied together: the primitive chain."""

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
        self.matmul = ops.MatMul(transpose_b=True)
        self.adapters = build_adapters(builder, names, in_features, out_features)

    def construct(self, x: Tensor, slots: Tensor | None = None) -> Tensor:
        """x [T, in_features], adapter slots i32 [T] -> [T, sum(out_features)]."""
        y = self.matmul(x, self.weight)
        if self.bias is not None:
            y = y + self.bias
        return y if self.adapters is None else self.adapters(y, x, slots)


class SplitLinear(nn.Cell):
    """The merged projections of the primitive chain and a split."""

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
        self.merged = build_merged(builder, names, in_features, out_features, bias=bias)
        self.sizes = tuple(out_features)

    def construct(self, x: Tensor, slots: Tensor | None = None) -> tuple[Tensor, ...]:
        """x [T, in_features], adapter slots i32 [T] -> one [T, size] tensor per projection."""
        parts: tuple[Tensor, ...] = mint.split(self.merged(x, slots), self.sizes, -1)
        return parts
