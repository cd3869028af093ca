# SPDX-License-Identifier: Apache-2.0
"""FLOAT: weights in the model's own dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_mindspore.quantization.schemes.base import Projections, TensorSource, biases

if TYPE_CHECKING:
    from mindspore import Parameter


class Float:
    """`weight` [N, K] and `bias` [N]."""

    def parameters(self, source: TensorSource, projections: Projections) -> list[Parameter]:
        """Weights, then biases."""
        inner = projections.in_features
        weights = [
            source.take_bits(f"{name}.weight", (size, inner)) for name, size in projections.parts()
        ]
        return weights + biases(source, projections)
