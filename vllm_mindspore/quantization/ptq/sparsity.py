# SPDX-License-Identifier: Apache-2.0
"""How many weights of a layer become zero, in which places, and how they are chosen.

Imports neither numpy nor MindSpore.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

RECOMMENDED = 0.4
"""The share of zeros that is taken where nothing is said (docs/quantization.md says why)."""

_LARGEST_BLOCK = 64
_PATTERN = re.compile(r"(\d{1,3}):(\d{1,3})")


class Method(enum.Enum):
    """How the weights that become zero are chosen."""

    MAGNITUDE = "magnitude"
    WANDA = "wanda"
    SPARSEGPT = "sparsegpt"


@dataclass(frozen=True)
class Pattern:
    """Of every `block` weights in a row, one after the other, `kept` are not made zero."""

    kept: int
    block: int

    def __post_init__(self) -> None:
        """Raises ValueError for one that keeps all or none, or whose block is too large."""
        if not 0 < self.kept < self.block <= _LARGEST_BLOCK:
            raise ValueError(
                f"--sparsity-pattern {self}: expected N:M with 0 < N < M <= {_LARGEST_BLOCK}, N "
                "weights of every M in a row being kept"
            )

    def __str__(self) -> str:
        return f"{self.kept}:{self.block}"

    @property
    def share(self) -> float:
        """Of zeros."""
        return 1 - self.kept / self.block


@dataclass(frozen=True)
class Sparsity:
    """What is asked for.

    Attributes:
        share: of the weights, to be zero.
        method: how they are chosen.
        pattern: where they are, or None for any places.
    """

    share: float = RECOMMENDED
    method: Method = Method.SPARSEGPT
    pattern: Pattern | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a share that leaves all or nothing, or is not the pattern's."""
        if not 0 < self.share < 1:
            raise ValueError(f"--sparsity {self.share}: expected a share between 0 and 1")
        if self.pattern is not None and abs(self.share - self.pattern.share) > 1e-6:
            raise ValueError(
                f"--sparsity {self.share} with --sparsity-pattern {self.pattern}, which makes "
                f"{self.pattern.share:g} of the weights zero: leave one out"
            )

    def check(self, name: str, in_features: int) -> None:
        """Raises ValueError for a layer whose rows the pattern does not divide, or in which
        nothing would be zero, or everything."""
        if self.pattern is not None and in_features % self.pattern.block:
            raise ValueError(
                f"{name} has {in_features} input channels, no multiple of the {self.pattern.block} "
                f"of --sparsity-pattern {self.pattern}"
            )
        if not 0 < self.zeros(in_features) < in_features:
            raise ValueError(
                f"{name} has {in_features} input channels; --sparsity {self.share} would make "
                f"{self.zeros(in_features)} of them zero"
            )

    def zeros(self, weights: int) -> int:
        """How many of so many weights are made zero."""
        return round(self.share * weights)


def parse_pattern(text: str) -> Pattern:
    """Of N:M. Raises ValueError for anything else."""
    found = _PATTERN.fullmatch(text)
    if not found:
        raise ValueError(f"--sparsity-pattern {text!r:.40}: expected N:M, such as 2:4")
    return Pattern(int(found[1]), int(found[2]))


def sparsity(share: float | None, method: Method, pattern: Pattern | None) -> Sparsity:
    """With the share of the pattern, or the recommended one, where none is given."""
    if share is None:
        share = RECOMMENDED if pattern is None else pattern.share
    return Sparsity(share, method, pattern)
