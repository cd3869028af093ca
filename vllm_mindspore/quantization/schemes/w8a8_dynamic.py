# SPDX-License-Identifier: Apache-2.0
"""W8A8_DYNAMIC: int8 weights with a scale per channel; each token's row finds its own scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vllm_mindspore import bridge
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


class W8A8Dynamic:
    """`weight`, `weight_scale`, maybe `weight_offset` (zeros), `smooth_scale` and `bias`."""

    def parameters(self, source: TensorSource, projections: Projections) -> LinearParameters:
        """int8 weights, their scales and the factors of the input."""
        tensors.ignore(source, projections, "weight_offset", zeros=True)
        return LinearParameters(
            Kind.PER_TOKEN,
            projections.in_features,
            tensors.weights(source, projections),
            biases(source, projections),
            tensors.output_scales(source, projections, "weight_scale"),
            input_scale=_factors(source, projections),
        )


def _factors(source: TensorSource, projections: Projections) -> Parameter:
    inner, name = projections.in_features, f"{projections.names[0]}.smooth_scale"
    if not source.has(name):
        return bridge.parameter(name, torch.ones(inner))

    def read(full: str) -> torch.Tensor:
        return source.stored(full, [(inner,)], tensors.FLOATS)

    values = tensors.shared(source, projections, "smooth_scale", read).to(torch.float32)
    tensors.require(source, name, values, "finite numbers", torch.isfinite)
    return bridge.parameter(name, values.contiguous())
