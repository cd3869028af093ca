# SPDX-License-Identifier: Apache-2.0
"""What calibration keeps of the input of a group of linear layers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_PROBE_ROWS = 512
_ROWS_PER_BATCH = 64


class InputStatistics:
    """The range of each channel over all tokens, and some rows to measure errors with.

    Attributes:
        low, high: float32 [K], least and largest value of each channel.
        tokens: how many rows were seen.
    """

    def __init__(self, channels: int) -> None:
        self.low: Floats = np.full(channels, np.inf, np.float32)
        self.high: Floats = np.full(channels, -np.inf, np.float32)
        self.tokens = 0
        self._rows: list[Floats] = []

    def add(self, x: Floats) -> None:
        """Takes in the rows x [T, K]."""
        np.minimum(self.low, x.min(0), out=self.low)
        np.maximum(self.high, x.max(0), out=self.high)
        self.tokens += len(x)
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
