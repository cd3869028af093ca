# SPDX-License-Identifier: Apache-2.0
"""What calibration keeps of the input of a group of linear layers.

Sums of products are in float64: thousands of tokens, and what is made of them is inverted.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_PROBE_ROWS = 512
_ROWS_PER_BATCH = 64


class InputStatistics:
    """The range of each channel over all tokens, and some rows to measure errors with.

    Attributes:
        low, high: float32 [K], least and largest value of each channel.
        tokens: how many rows were seen.
        products: sum of x_i x_j over all rows, [K, K], or None where nothing needs it.
        sums, squares: sum of x and of its squares, [K].
    """

    def __init__(self, channels: int, *, products: bool = False) -> None:
        self.products: Doubles | None = np.zeros((channels, channels)) if products else None
        self.sums: Doubles = np.zeros(channels)
        self.squares: Doubles = np.zeros(channels)
        self.low: Floats = np.full(channels, np.inf, np.float32)
        self.high: Floats = np.full(channels, -np.inf, np.float32)
        self.tokens = 0
        self._rows: list[Floats] = []

    def add(self, x: Floats) -> None:
        """Takes in the rows x [T, K]."""
        np.minimum(self.low, x.min(0), out=self.low)
        np.maximum(self.high, x.max(0), out=self.high)
        self.tokens += len(x)
        self.sums += x.sum(0, dtype=np.float64)
        self.squares += np.square(x, dtype=np.float64).sum(0)
        if self.products is not None:
            self.products += x.T @ x
        kept = sum(len(rows) for rows in self._rows)
        if kept < _PROBE_ROWS:
            count = min(_ROWS_PER_BATCH, _PROBE_ROWS - kept, len(x))
            self._rows.append(x[np.linspace(0, len(x) - 1, count).astype(int)])

    def largest(self) -> Floats:
        """max |X_k| of each channel, float32 [K]."""
        found: Floats = np.maximum(np.abs(self.low), np.abs(self.high))
        return found

    def rows(self) -> Floats:
        """Rows spread over what was seen, [R, K]."""
        return np.concatenate(self._rows)
