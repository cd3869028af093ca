# SPDX-License-Identifier: Apache-2.0
"""W8A16: int8 weights for activations in bfloat16 or float16; x . ((W + offset) * scale)^T."""

from __future__ import annotations

from dataclasses import dataclass

from vllm_mindspore.quantization.schemes import tensors, weight_scales
from vllm_mindspore.quantization.schemes.base import (
    Kind,
    LinearParameters,
    Projections,
    TensorSource,
    biases,
)
from vllm_mindspore.quantization.schemes.weight_scales import Form


@dataclass(frozen=True)
class W8A16:
    """`weight` int8 [N, K], `weight_scale`, maybe `weight_offset` and `bias`."""

    form: Form

    def parameters(self, source: TensorSource, projections: Projections) -> LinearParameters:
        """The mapped weights and their scales."""
        found = weight_scales.read(source, projections, self.form)
        return LinearParameters(
            Kind.WEIGHT_INT8,
            projections.in_features,
            tensors.weights(source, projections),
            biases(source, projections),
            found.scales,
            offsets=found.offsets,
            group_size=found.group_size,
        )
