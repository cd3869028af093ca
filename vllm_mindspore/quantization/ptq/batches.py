# SPDX-License-Identifier: Apache-2.0
"""Calibration data in batches, and what a layer does with one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
OnInput = Callable[[tuple[str, ...], Floats], Floats | None]
"""Names of the linear layers of an input [T, K], and the input -> what to compute with instead, or
None to leave it."""
OnCache = Callable[[Floats, Floats], None]
"""Keys and values of a batch as a layer caches them, [T, kv_heads * head_dim] each."""


@dataclass(frozen=True)
class Batch:
    """Sequences that are computed together.

    Attributes:
        lengths: tokens of each.
        token_ids: int32 [T], one after the other.
    """

    lengths: tuple[int, ...]
    token_ids: npt.NDArray[np.int32]


def batches(samples: Sequence[Sequence[int]], tokens: int) -> list[Batch]:
    """Samples of token ids in batches of at most `tokens` tokens, or one sample."""
    found: list[list[Sequence[int]]] = []
    room = 0
    for sample in samples:
        if len(sample) > room:
            found.append([])
            room = tokens
        found[-1].append(sample)
        room -= len(sample)
    return [
        Batch(tuple(map(len, part)), np.concatenate([np.array(s, np.int32) for s in part]))
        for part in found
    ]


class Layer(Protocol):
    """A decoder layer whose weights can be changed and whose inputs can be seen.

    Attributes:
        arrays: tensor name -> float32 weights, changed in place.
        on_input: called with every input of linear layers.
        on_cache: called with the keys and values of every run.
    """

    arrays: dict[str, Floats]
    on_input: OnInput | None
    on_cache: OnCache | None

    def run(self, hidden: Floats, batch: Batch) -> Floats:
        """hidden [T, hidden size] of a batch -> that of the next layer."""
