# SPDX-License-Identifier: Apache-2.0
"""The factors that move outliers of activations into weights: x / s and W * s.

SmoothQuant (https://arxiv.org/abs/2211.10438): s_k = max|X_k|^alpha / max_n|W_nk|^(1 - alpha).
Outlier Suppression+ (https://arxiv.org/abs/2304.09145) first centres each channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vllm_mindspore.quantization.ptq.statistics import InputStatistics
from vllm_mindspore.quantization.ptq.structure import Rows

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

ALPHA = 0.5
ALPHA_GRID = tuple(i / 20 for i in range(20))
"""What a search tries."""

_LEAST = 1e-5


@dataclass(frozen=True)
class Smoothing:
    """How the input of a group is changed: (x - shift) / scale.

    Attributes:
        scale: float32 [K] above 0.
        shift: float32 [K], or None for methods that do not shift.
    """

    scale: Floats
    shift: Floats | None = None

    @classmethod
    def none(cls, channels: int) -> Smoothing:
        """The input as it is."""
        return cls(np.ones(channels, np.float32))

    def range(self, statistics: InputStatistics) -> tuple[float, float]:
        """Least and largest value of the changed input."""
        shift = 0.0 if self.shift is None else self.shift
        low, high = (statistics.low - shift) / self.scale, (statistics.high - shift) / self.scale
        return float(low.min()), float(high.max())

    def apply(self, x: Floats) -> Floats:
        """The changed input [.., K]."""
        shifted = x if self.shift is None else x - self.shift
        changed: Floats = shifted / self.scale
        return changed

    def squares(self, statistics: InputStatistics) -> Doubles:
        """Sum of squares of each channel of the changed input, [K]."""
        found = statistics.squares
        if self.shift is not None:
            shift = self.shift.astype(np.float64)
            found = found + shift * (statistics.tokens * shift - 2 * statistics.sums)
        # Rounding may leave less than nothing of a channel that is constant.
        changed: Doubles = np.maximum(found, 0.0) / np.square(self.scale.astype(np.float64))
        return changed

    def products(self, statistics: InputStatistics) -> Doubles:
        """Sum of x_i x_j of the changed input over all rows, [K, K]."""
        found = statistics.products
        assert found is not None, "products are kept where they are needed"
        if self.shift is not None:
            shift = self.shift.astype(np.float64)
            half = np.outer(shift, statistics.sums - statistics.tokens * shift / 2)
            found = found - half - half.T
        scale = self.scale.astype(np.float64)
        changed: Doubles = found / scale / scale[:, None]
        return changed

    def undo(self, x: Floats) -> Floats:
        """The input that is changed to x."""
        scaled: Floats = x * self.scale
        return scaled if self.shift is None else scaled + self.shift


def largest_weights(weights: Sequence[Floats]) -> Floats:
    """max_n |W_nk| over all weights [N, K] of a group, float32 [K]."""
    found: Floats = np.stack([np.abs(weight).max(0) for weight in weights]).max(0)
    return found


def smooth_scale(inputs: Floats, weights: Floats, alpha: float) -> Floats:
    """s [K] from max|X_k| and max_n|W_nk|, at least 1e-5; 1 where either is 0."""
    x, w = inputs.astype(np.float64), weights.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = x**alpha / w ** (1 - alpha)
    scale = np.where((x == 0) | (w == 0), 1.0, np.maximum(scale, _LEAST))
    return scale.astype(np.float32)


def centre(statistics: InputStatistics) -> Floats:
    """(max + min) / 2 of each channel, float32 [K]."""
    return np.asarray((statistics.high + statistics.low) / 2, np.float32)


def over_heads(values: Floats, rows: Rows | None) -> Floats:
    """The largest of the channels that one row feeds, at each of them, [K]: what those rows take
    up must be one factor."""
    if rows is None or rows.repeats == 1:
        return values
    heads = values.reshape(-1, rows.repeats, rows.head_dim)
    return np.broadcast_to(heads.max(1, keepdims=True), heads.shape).reshape(-1)


def row_factors(scale: Floats, rows: Rows) -> Floats:
    """The factor of each row, of scales [K] that are alike where one row feeds them."""
    return scale.reshape(-1, rows.repeats, rows.head_dim)[:, 0].reshape(-1)
