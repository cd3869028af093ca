# SPDX-License-Identifier: Apache-2.0
"""W8A8_DYNAMIC as compressed-tensors stores it: `weight` int8 [N, K], `weight_scale` [N, 1]."""

from __future__ import annotations

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


class CompressedDynamic:
    """`weight`, `weight_scale`, maybe `bias`; zeros that old files have."""

    def parameters(self, source: TensorSource, projections: Projections) -> LinearParameters:
        """int8 weights and their scales."""
        tensors.ignore(source, projections, "weight_zero_point", zeros=True)
        inner, first = projections.in_features, projections.names[0]
        return LinearParameters(
            Kind.PER_TOKEN,
            inner,
            tensors.weights(source, projections),
            biases(source, projections),
            tensors.output_scales(source, projections, "weight_scale"),
            input_scale=bridge.parameter(f"{first}.factors", torch.ones(inner)),
        )
