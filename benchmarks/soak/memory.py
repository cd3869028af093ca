# SPDX-License-Identifier: Apache-2.0
"""Resident memory of a server's processes over time: after the warm-up it must stay flat."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass

import psutil

_MIB = 1 << 20
# What allocators keep of the largest moments, which come at random times.
ALLOWED_MIB = 32.0
ALLOWED_FRACTION = 0.03


@dataclass(frozen=True)
class Trend:
    """Resident memory of one process, in MiB; `slope` is in MiB per minute."""

    warm: float
    end: float
    peak: float
    slope: float

    @property
    def flat(self) -> bool:
        """Whether it grew by less than what is allowed, however long it took."""
        return self.end - self.warm <= ALLOWED_MIB + ALLOWED_FRACTION * self.warm


class MemoryLog:
    """Samples of every process below and including one.

    Args:
        pid: the serving process.
    """

    def __init__(self, pid: int) -> None:
        self._top = psutil.Process(pid)
        self._start = time.monotonic()
        self._samples: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def sample(self) -> None:
        """Take one sample of each process."""
        now = time.monotonic() - self._start
        for process in (self._top, *self._top.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                name = "server" if process.pid == self._top.pid else process.name()
                resident = process.memory_info().rss / _MIB
                self._samples[f"{name} ({process.pid})"].append((now, resident))

    def trends(self) -> dict[str, Trend]:
        """By process; the first third of the samples is the warm-up, and left out."""
        return {
            name: _trend(samples[len(samples) // 3 :])
            for name, samples in self._samples.items()
            if len(samples) >= 6
        }


def _trend(samples: list[tuple[float, float]]) -> Trend:
    seconds = [moment for moment, _ in samples]
    resident = [size for _, size in samples]
    quarter = max(1, len(samples) // 4)
    return Trend(
        warm=statistics.median(resident[:quarter]),
        end=statistics.median(resident[-quarter:]),
        peak=max(resident),
        slope=60 * statistics.linear_regression(seconds, resident).slope,
    )
