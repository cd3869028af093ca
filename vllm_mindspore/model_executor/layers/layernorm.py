# SPDX-License-Identifier: Apache-2.0
"""Root mean square normalisation (https://arxiv.org/abs/1910.07467)."""

from __future__ import annotations

from mindspore import Tensor, nn
from mindspore.ops.auto_generate import gen_ops_prim

from vllm_mindspore.model_executor.layers.build import LayerBuilder


class RmsNorm(nn.Cell):
    """y = x / sqrt(mean(x^2) + epsilon) * weight over the last axis.

    With a residual, x + residual is normalised and also returned: the next residual.
    """

    def __init__(self, builder: LayerBuilder, name: str, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = builder.source.take(f"{name}.weight", (size,))
        self.epsilon = epsilon
        self.norm = gen_ops_prim.RmsNorm(epsilon)
        self.add_norm = gen_ops_prim.AddRmsNorm()

    def construct(self, x: Tensor, residual: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x and residual [T, size] -> (normalised [T, size], new residual [T, size])."""
        if residual is None:
            return self.norm(x, self.weight)[0], x
        normed, _, summed = self.add_norm(x, residual, self.weight, self.epsilon)
        return normed, summed
