# SPDX-License-Identifier: Apache-2.0
"""Linear layers: y = x . W^T + b, with W [out_features, in_features] as checkpoints store it."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Parameter, ParameterTuple, Tensor, mint, nn, ops

from vllm_mindspore import bridge
from vllm_mindspore.device.custom_ops import custom_op
from vllm_mindspore.model_executor.layers.adapters import build_adapters
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.layers.quantized_linear import QuantizedLinear, joined
from vllm_mindspore.model_executor.layers.sparse_linear import SparseLinear
from vllm_mindspore.model_executor.layers.weight_only_linear import WeightOnlyLinear
from vllm_mindspore.model_executor.model_loader.source import ParameterSource
from vllm_mindspore.quantization.schemes.base import Kind, LinearParameters


def build_linear(
    builder: LayerBuilder, name: str, in_features: int, out_features: int, *, bias: bool = False
) -> nn.Cell:
    """One projection with the builder's kernels."""
    return build_merged(builder, [name], in_features, [out_features], bias=bias)


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
    if builder.is_plain(names):
        taken = _take(builder.source, names, in_features, out_features, bias=bias)
        return Linear(*taken, build_adapters(builder, names, in_features, out_features))
    found, dtype = builder.linear(names, in_features, out_features, bias=bias), builder.source.dtype
    if found.kind is Kind.FLOAT:
        made = [bridge.typed(joined(part), dtype) for part in (found.weights, found.biases) if part]
        return Linear(*made)
    return _cell_of(found)(found, dtype)


def _take(
    source: ParameterSource,
    names: Sequence[str],
    in_features: int,
    out_features: Sequence[int],
    *,
    bias: bool,
) -> tuple[Parameter, Parameter | None]:
    """Weight and bias of all projections. A single one's is not copied, and is the source's only
    one: an embedding may share it."""

    def take(part: str, shapes: list[tuple[int, ...]]) -> Parameter:
        tensors = [f"{name}.{part}" for name in names]
        if len(tensors) == 1:
            return source.take(tensors[0], shapes[0])
        return source.take_merged(tensors, shapes)

    weight = take("weight", [(size, in_features) for size in out_features])
    return weight, take("bias", [(size,) for size in out_features]) if bias else None


def _cell_of(
    found: LinearParameters,
) -> type[WeightOnlyLinear] | type[SparseLinear] | type[QuantizedLinear]:
    if found.weight_only:
        return WeightOnlyLinear
    return SparseLinear if found.indexes else QuantizedLinear


class Linear(nn.Cell):
    """One to three projections of the same input as one MatMul: the primitive chain."""

    def __init__(
        self, weight: Parameter, bias: Parameter | None = None, adapters: nn.Cell | None = None
    ) -> None:
        """weight [N, in_features] and bias [N], N the sum of out_features."""
        super().__init__()
        self.weight, self.bias, self.adapters = weight, bias, adapters
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor, slots: Tensor | None = None) -> Tensor:
        """x [T, in_features], adapter slots i32 [T] -> [T, sum(out_features)]."""
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
