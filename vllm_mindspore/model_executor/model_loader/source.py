# SPDX-License-Identifier: Apache-2.0
"""Where parameters come from: a model asks for each weight by name and shape.

All problems of a checkpoint are collected while the model is built and reported together by
`finish`, before anything runs. Weights that are not converted are not even read by then.
"""

from __future__ import annotations

import math
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

    @property
    def num_bytes(self) -> int:
        """Memory the parameters handed out so far refer to, each counted once."""

    def has(self, name: str) -> bool:
        """Whether there is a weight `name`, for weights that a checkpoint may leave out."""

    def take(self, name: str, shape: Sequence[int]) -> Parameter:
        """The weight `name`, which must have `shape`; the same Parameter every time.

        One graph must not read it in two places: MindSpore would copy it in every call.
        """

    def take_bits(self, name: str, shape: Sequence[int]) -> Parameter:
        """The same for our own kernels: bfloat16 as int16 of the same bits, since MindSpore would
        move bfloat16 into memory of its own (see `bridge.parameter`)."""

    def take_merged(self, names: Sequence[str], shapes: Sequence[Sequence[int]]) -> Parameter:
        """Several weights concatenated along their first axis (a copy)."""

    def stored(
        self, name: str, shapes: Sequence[Sequence[int]], dtypes: Sequence[torch.dtype]
    ) -> torch.Tensor:
        """A tensor that is no weight in the source's dtype, as it is stored: one of these shapes
        and dtypes."""

    def release(self, name: str) -> None:
        """For a caller that has copied what `stored` gave: memory that only holds it is freed."""

    def note(self, problem: str) -> None:
        """Adds a line to what `finish` reports."""

    def place(self, name: str) -> str:
        """Tensor and file, for messages."""

    def finish(self) -> None:
        """Raises ValueError naming every missing, extra or misshaped tensor."""


class Problems:
    """What is wrong with a checkpoint, collected to be reported at once."""

    def __init__(self, place: str, complaint: str = "does not fit the model") -> None:
        self._place = place
        self._complaint = complaint
        self._lines: list[str] = []

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, line: str) -> None:
        self._lines.append(line)

    def raise_if_any(self, advice: str) -> None:
        """ValueError with the first problems, their number and `advice`."""
        if not self._lines:
            return
        shown = "\n  ".join(self._lines[:_MAX_REPORTED])
        more = len(self._lines) - _MAX_REPORTED
        rest = f"\n  ... and {more} more" if more > 0 else ""
        raise ValueError(f"{self._place} {self._complaint}:\n  {shown}{rest}\n{advice}")


DECODER_PREFIX = "model."


def relative_to_decoder(source: ParameterSource) -> ParameterSource:
    """The source, with names as decoders without a head store them: without `model.`."""
    full = source.has(f"{DECODER_PREFIX}embed_tokens.weight")
    return source if full or not source.has("embed_tokens.weight") else DecoderSource(source)


class DecoderSource:
    """A source whose names lack the prefix of the decoder in a whole model."""

    def __init__(self, source: ParameterSource) -> None:
        self._source = source
        self.dtype = source.dtype

    @property
    def num_bytes(self) -> int:
        """Of the source."""
        return self._source.num_bytes

    def has(self, name: str) -> bool:
        """As the source, for the name without prefix."""
        return self._source.has(name.removeprefix(DECODER_PREFIX))

    def take(self, name: str, shape: Sequence[int]) -> Parameter:
        """As the source, for the name without prefix."""
        return self._source.take(name.removeprefix(DECODER_PREFIX), shape)

    def take_bits(self, name: str, shape: Sequence[int]) -> Parameter:
        """As the source, for the name without prefix."""
        return self._source.take_bits(name.removeprefix(DECODER_PREFIX), shape)

    def take_merged(self, names: Sequence[str], shapes: Sequence[Sequence[int]]) -> Parameter:
        """As the source, for the names without prefix."""
        return self._source.take_merged([n.removeprefix(DECODER_PREFIX) for n in names], shapes)

    def stored(
        self, name: str, shapes: Sequence[Sequence[int]], dtypes: Sequence[torch.dtype]
    ) -> torch.Tensor:
        """As the source, for the name without prefix."""
        return self._source.stored(name.removeprefix(DECODER_PREFIX), shapes, dtypes)

    def release(self, name: str) -> None:
        """As the source, for the name without prefix."""
        self._source.release(name.removeprefix(DECODER_PREFIX))

    def note(self, problem: str) -> None:
        """As the source."""
        self._source.note(problem)

    def place(self, name: str) -> str:
        """As the source, for the name without prefix."""
        return self._source.place(name.removeprefix(DECODER_PREFIX))

    def finish(self) -> None:
        """As the source."""
        self._source.finish()


class DummySource:
    """Small random weights of any shape, the same on every run (`--load-format dummy`)."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.num_bytes = 0
        self._tensors: dict[str, torch.Tensor] = {}
        self._parameters: dict[str, Parameter] = {}
        self._bits: dict[str, Parameter] = {}
        generator = np.random.default_rng(_DUMMY_SEED)
        pattern = generator.uniform(-_DUMMY_SCALE, _DUMMY_SCALE, _DUMMY_PERIOD)
        self._pattern = torch.from_numpy(pattern).to(dtype)

    def has(self, name: str) -> bool:
        """No: dummy models have no optional weights."""
        return False

    def take(self, name: str, shape: Sequence[int]) -> Parameter:
        """Random values in (-1e-3, 1e-3); the same name gives the same Parameter.

        Raises ValueError for a shape that no memory can hold."""
        if name not in self._parameters:
            self._parameters[name] = bridge.parameter(name, self._tensor(name, tuple(shape)))
        return self._parameters[name]

    def take_bits(self, name: str, shape: Sequence[int]) -> Parameter:
        """The same values."""
        if name not in self._bits:
            self._bits[name] = bridge.bits_parameter(name, self._tensor(name, tuple(shape)))
        return self._bits[name]

    def take_merged(self, names: Sequence[str], shapes: Sequence[Sequence[int]]) -> Parameter:
        """Random values of the concatenated shape."""
        rows = sum(shape[0] for shape in shapes)
        return self.take("+".join(names), (rows, *shapes[0][1:]))

    def stored(
        self, name: str, shapes: Sequence[Sequence[int]], dtypes: Sequence[torch.dtype]
    ) -> torch.Tensor:
        """Of the first shape and dtype: random int8, zeros of other integers, floats of 1e-3."""
        if name not in self._tensors:
            self._tensors[name] = self._fill_stored(name, tuple(shapes[0]), dtypes[0])
            self.num_bytes += self._tensors[name].nbytes
        return self._tensors[name]

    def release(self, name: str) -> None:
        """Forgets the tensor; it would be made again."""
        self._tensors.pop(name, None)

    def note(self, problem: str) -> None:
        """Raises ValueError: dummy weights always fit, so a layer expects what cannot be."""
        raise ValueError(f"dummy weights: {problem}")

    def place(self, name: str) -> str:
        """There is no file."""
        return f"tensor {name}"

    def finish(self) -> None:
        """Dummy weights always fit."""

    def _tensor(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if name not in self._tensors:
            self._tensors[name] = self._fill(name, shape, self._pattern)
            self.num_bytes += self._tensors[name].nbytes
        return self._tensors[name]

    def _fill_stored(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        if dtype == torch.int8:
            return self._fill(name, shape, (self._pattern.float() * 1e5).to(dtype))
        value = _DUMMY_SCALE if dtype.is_floating_point else 0
        return self._fill(name, shape, torch.full((_DUMMY_PERIOD,), value, dtype=dtype))

    def _fill(self, name: str, shape: tuple[int, ...], pattern: torch.Tensor) -> torch.Tensor:
        count = math.prod(shape)
        try:
            tensor = torch.empty(count, dtype=pattern.dtype)
        except (RuntimeError, TypeError) as error:  # no such memory; no such integer
            raise ValueError(
                f"tensor {name}: no memory for shape {list(shape)}, "
                f"{count * pattern.dtype.itemsize} bytes; check the sizes in config.json"
            ) from error
        for start in range(0, count, _DUMMY_PERIOD):
            part = tensor[start : start + _DUMMY_PERIOD]
            part.copy_(pattern[: part.numel()])
        return tensor.reshape(shape)
