# SPDX-License-Identifier: Apache-2.0
"""FLOAT: weights in the model's own dtype."""

from __future__ import annotations

from vllm_mindspore.quantization.schemes.base import (
    Kind,
    LinearParameters,
    Projections,
    TensorSource,
    biases,
)


class Float:
    """`weight` [N, K] and `bias` [N]."""

    def parameters(self, source: TensorSource, projections: Projections) -> LinearParameters:
        """Weights and biases."""
        inner = projections.in_features
        weights = tuple(
            source.take_bits(f"{name}.weight", (size, inner)) for name, size in projections.parts()
        )
        return LinearParameters(Kind.FLOAT, inner, weights, biases(source, projections))
