# SPDX-License-Identifier: Apache-2.0
"""W8A8 with static scales, as Golden Stick and as ModelSlim store it.

Activations have one scale s and zero point z per tensor, which files may repeat for each input
channel; after SmoothQuant they hold s times the channel's factor. Sums are taken times deq_scale
[N] after quant_bias [N], which holds -z * sum_k W and, from ModelSlim, the layer's bias as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vllm_mindspore import bridge
from vllm_mindspore.quantization.description import Tool
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
class W8A8:
    """`weight`, `deq_scale`, `quant_bias`, `input_scale`, `input_offset`, maybe `beta`, `bias`."""

    tool: Tool

    def parameters(self, source: TensorSource, projections: Projections) -> LinearParameters:
        """int8 weights, scales and quant_bias of the sums, the input's scale and offset."""
        for part in ("weight_scale", "weight_offset"):
            tensors.ignore(source, projections, part)
        golden_stick = self.tool is Tool.GOLDEN_STICK
        kind, scale, offset, beta = self._input(source, projections)
        return LinearParameters(
            kind,
            projections.in_features,
            tensors.weights(source, projections),
            (biases if golden_stick else _folded_biases)(source, projections),
            tensors.output_scales(source, projections, "deq_scale"),
            _quant_biases(source, projections),
            scale,
            offset,
            beta=beta,
        )

    def _input(
        self, source: TensorSource, projections: Projections
    ) -> tuple[Kind, Parameter, Parameter, Parameter | None]:
        inner = projections.in_features
        shapes = [(inner,), (1,)]

        def read_scale(full: str) -> torch.Tensor:
            return source.stored(full, shapes, tensors.FLOATS)

        def read_offset(full: str) -> torch.Tensor:
            return source.stored(full, shapes, [torch.int8, *tensors.FLOATS])

        scale = tensors.shared(source, projections, "input_scale", read_scale)
        offset = tensors.shared(source, projections, "input_offset", read_offset)
        reciprocal = self._is_reciprocal(scale, offset)
        name = projections.names[0]
        scale, offset = (v.to(torch.float32).expand(inner) for v in (scale, offset))
        tensors.require(
            source, f"{name}.input_scale", scale, "finite numbers above 0", tensors.is_positive
        )
        tensors.require(source, f"{name}.input_offset", offset, "whole numbers", _is_whole)
        beta = self._beta(source, projections)
        if beta is not None:
            offset = offset + (beta * scale if reciprocal else beta / scale)
        return (
            Kind.MULTIPLY if reciprocal else Kind.DIVIDE,
            bridge.parameter(f"{name}.input_scale", scale.contiguous()),
            bridge.parameter(f"{name}.input_offset", offset.contiguous()),
            None if beta is None else bridge.parameter(f"{name}.beta", beta),
        )

    def _is_reciprocal(self, scale: torch.Tensor, offset: torch.Tensor) -> bool:
        """Golden Stick stores 1 / s, one number beside a float offset, for layers whose outliers it
        did not touch; nothing else tells it apart."""
        one = scale.numel() == 1 and offset.numel() == 1
        return self.tool is Tool.GOLDEN_STICK and one and offset.dtype != torch.int8

    def _beta(self, source: TensorSource, projections: Projections) -> torch.Tensor | None:
        """What is added to the input (Outlier Suppression+)."""
        if not source.has(f"{projections.names[0]}.beta"):
            return None
        shapes = [(projections.in_features,)]

        def read(full: str) -> torch.Tensor:
            return source.stored(full, shapes, tensors.FLOATS)

        return tensors.shared(source, projections, "beta", read).to(torch.float32)


def _quant_biases(source: TensorSource, projections: Projections) -> tuple[Parameter, ...]:
    found = []
    for name, size in projections.parts():
        full = f"{name}.quant_bias"
        found.append(bridge.parameter(full, source.stored(full, [(size,)], [torch.int32])))
    return tuple(found)


def _folded_biases(source: TensorSource, projections: Projections) -> tuple[Parameter, ...]:
    """Zeros: quant_bias holds the biases, which files repeat."""
    tensors.ignore(source, projections, "bias")
    if not projections.bias:
        return ()
    return tuple(
        bridge.bits_parameter(f"{name}.bias", torch.zeros(size, dtype=source.dtype))
        for name, size in projections.parts()
    )


def _is_whole(values: torch.Tensor) -> torch.Tensor:
    return values == torch.round(values)
