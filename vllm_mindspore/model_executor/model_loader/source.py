# SPDX-License-Identifier: Apache-2.0
"""Where parameters come from: a model asks for each weight by name and shape.

All problems of a checkpoint are collected while the model is built and reported together by
`finish`, before anything runs. Weights that are not converted are not even read by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from vllm_mindspore import bridge

if TYPE_CHECKING:
    from mindspore import Parameter

_DUMMY_SEED = 0
_DUMMY_SCALE = 1e-3
_DUMMY_PERIOD = 1 << 20
_MAX_REPORTED = 20


class ParameterSource(Protocol):
    """Gives a model its frozen parameters."""

    dtype: torch.dtype
    """Every parameter's dtype."""

    num_bytes: int
    """Memory the parameters handed out so far refer to, each counted once."""

    def take(self, name: str, shape: Sequence[int]) -> Parameter:
        """The weight `name`, which must have `shape`."""

    def take_merged(self, names: Sequence[str], shapes: Sequence[Sequence[int]]) -> Parameter:
        """Several weights concatenated along their first axis (a copy)."""

    def finish(self) -> None:
        """Raises ValueError naming every missing, extra or misshaped tensor."""


class Problems:
    """What is wrong with a checkpoint, collected to be reported at once."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        self._lines.append(line)

    def raise_if_any(self, advice: str) -> None:
        """ValueError with the first problems, their number and `advice`."""
        if not self._lines:
            return
        shown = "\n  ".join(self._lines[:_MAX_REPORTED])
        more = len(self._lines) - _MAX_REPORTED
        rest = f"\n  ... and {more} more" if more > 0 else ""
        raise ValueError(f"{self._place} does not fit the model:\n  {shown}{rest}\n{advice}")


class DummySource:
    """Small random weights of any shape, the same on every run (`--load-format dummy`)."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.num_bytes = 0
        self._taken: dict[str, torch.Tensor] = {}
        generator = np.random.default_rng(_DUMMY_SEED)
        pattern = generator.uniform(-_DUMMY_SCALE, _DUMMY_SCALE, _DUMMY_PERIOD)
        self._pattern = torch.from_numpy(pattern).to(dtype)

    def take(self, name: str, shape: Sequence[int]) -> Parameter:
        """Random values in (-1e-3, 1e-3); the same name gives the same memory."""
        if name not in self._taken:
            self._taken[name] = self._fill(tuple(shape))
            self.num_bytes += self._taken[name].nbytes
        return bridge.parameter(name, self._taken[name])

    def take_merged(self, names: Sequence[str], shapes: Sequence[Sequence[int]]) -> Parameter:
        """Random values of the concatenated shape."""
        rows = sum(shape[0] for shape in shapes)
        return self.take("+".join(names), (rows, *shapes[0][1:]))

    def finish(self) -> None:
        """Dummy weights always fit."""

    def _fill(self, shape: tuple[int, ...]) -> torch.Tensor:
        count = int(np.prod(shape))
        tensor = torch.empty(count, dtype=self.dtype)
        for start in range(0, count, _DUMMY_PERIOD):
            part = tensor[start : start + _DUMMY_PERIOD]
            part.copy_(self._pattern[: part.numel()])
        return tensor.reshape(shape)
