# SPDX-License-Identifier: Apache-2.0
"""W8A8 with static scales as compressed-tensors stores it.

`weight` int8 [N, K] with `weight_scale` [N, 1], the input's `input_scale` [1] and, where its range
is not symmetric, `input_zero_point` int8 [1]; what the kernels take besides is computed from them:
deq_scale = input_scale * weight_scale, quant_bias = -input_zero_point * sum_k W.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vllm_mindspore import bridge
from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.schemes import tensors
from vllm_mindspore.quantization.schemes.base import (
    Kind,
    LinearParameters,
    Projections,
    TensorSource,
    biases,
)

if TYPE_CHECKING:
    from mindspore import Parameter


@dataclass(frozen=True)
class CompressedStatic:
    """`weight`, `weight_scale`, `input_scale`, maybe `input_zero_point` and `bias`."""

    zero_point: bool

    def parameters(self, source: TensorSource, projections: Projections) -> LinearParameters:
        """int8 weights, scales and quant_bias of the sums, the input's scale and offset."""
        tensors.ignore(source, projections, "weight_zero_point", zeros=True)
        scale, offset = self._input_scale(source, projections), self._offset(source, projections)
        inner, first = projections.in_features, projections.names[0]
        return LinearParameters(
            Kind.DIVIDE,
            inner,
            tensors.weights(source, projections),
            biases(source, projections),
            _deq_scales(source, projections, scale),
            _quant_biases(source, projections, int(offset)),
            bridge.parameter(f"{first}.input_scale", scale.expand(inner).contiguous()),
            bridge.parameter(f"{first}.input_offset", offset.expand(inner).contiguous()),
        )

    def _input_scale(self, source: TensorSource, projections: Projections) -> torch.Tensor:
        """float32 [1]."""

        def read(full: str) -> torch.Tensor:
            return source.stored(full, [(1,)], tensors.FLOATS)

        scale = tensors.shared(source, projections, "input_scale", read).to(torch.float32)
        name = f"{projections.names[0]}.input_scale"
        tensors.require(source, name, scale, "finite numbers above 0", tensors.is_positive)
        return scale

    def _offset(self, source: TensorSource, projections: Projections) -> torch.Tensor:
        """float32 [1]; old files hold zeros for symmetric ranges, too."""

        def read(full: str) -> torch.Tensor:
            return source.stored(full, [(1,)], [torch.int8])

        names = [f"{name}.input_zero_point" for name in projections.names]
        if not self.zero_point and not any(source.has(name) for name in names):
            return torch.zeros(1)
        offset = tensors.shared(source, projections, "input_zero_point", read)
        if not self.zero_point:
            tensors.require(source, names[0], offset, "0 (symmetric inputs)", lambda v: v == 0)
        return offset.to(torch.float32)


def _deq_scales(
    source: TensorSource, projections: Projections, input_scale: torch.Tensor
) -> tuple[Parameter, ...]:
    found = []
    for name, size in projections.parts():
        weight_scale = tensors.output_scale(source, f"{name}.weight_scale", size)
        found.append(bridge.parameter(f"{name}.deq_scale", input_scale * weight_scale))
    return tuple(found)


def _quant_biases(
    source: TensorSource, projections: Projections, offset: int
) -> tuple[Parameter, ...]:
    """Weights are read only where there is something to fold."""
    found = []
    for name, size in projections.parts():
        folded = torch.zeros(size, dtype=torch.int32)
        if offset:
            shape = (size, projections.in_features)
            weight = source.stored(f"{name}.weight", [shape], [torch.int8])
            folded = torch.from_numpy(primitives.folded_offset(weight.numpy(), offset))
        found.append(bridge.parameter(f"{name}.quant_bias", folded))
    return tuple(found)
