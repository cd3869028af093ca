# SPDX-License-Identifier: Apache-2.0
"""Layers of one input that a file holds as one module, read by schemes that know them apart; and
the biases of row-parallel layers, which the first rank alone may have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from vllm_mindspore import bridge
from vllm_mindspore.quantization.schemes import tensors
from vllm_mindspore.quantization.schemes.base import (
    LinearParameters,
    Projections,
    Scheme,
    TensorSource,
)
from vllm_mindspore.quantization.sharding import ADDED_ONCE, is_of_input

if TYPE_CHECKING:
    from mindspore import Parameter


@dataclass(frozen=True)
class Fused:
    """`scheme`, whose tensors are rows of those of `module`."""

    scheme: Scheme
    module: str

    def parameters(self, source: TensorSource, projections: Projections) -> LinearParameters:
        """As the scheme, of views of the files' tensors."""
        return self.scheme.parameters(Rows(source, self.module, projections), projections)


@dataclass(frozen=True)
class OnFirstRankOnly:
    """`scheme` of a row-parallel `module` of another rank: nothing may be added to its sums.

    Attributes:
        scheme: that of the module.
        module: its name in the files.
        zeroed: whether zeros take the place of what is added; else the files must have zeros.
    """

    scheme: Scheme
    module: str
    zeroed: bool

    def parameters(self, source: TensorSource, projections: Projections) -> LinearParameters:
        """As the scheme, without what the first rank adds."""
        found = self.scheme.parameters(source, projections)
        if self.zeroed:
            biases, quant_biases = _zeros(found.biases), _zeros(found.quant_biases)
            return replace(found, biases=biases, quant_biases=quant_biases)
        self._require_zeros(source, projections)
        return found

    def _require_zeros(self, source: TensorSource, projections: Projections) -> None:
        kinds = [*tensors.FLOATS, torch.int32]
        for part in ADDED_ONCE:
            name = f"{self.module}.{part}"
            if source.has(name):
                values = source.stored(name, [(sum(projections.out_features),)], kinds)
                what = "zeros on every rank but the first, since ranks add up their results"
                tensors.require(source, name, values, what, lambda v: v == 0)


def _zeros(parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """Of the same names, shapes and dtypes."""
    return tuple(
        bridge.parameter(each.name, torch.zeros_like(bridge.to_torch(each))) for each in parameters
    )


class Rows:
    """A source of the tensors of single layers, which are rows of a fused module's."""

    def __init__(self, source: TensorSource, module: str, projections: Projections) -> None:
        self.dtype = source.dtype
        self._source, self._module = source, module
        self._total = sum(projections.out_features)
        self._rows, start = {}, 0
        for name, size in projections.parts():
            self._rows[name] = (start, size)
            start += size

    def has(self, name: str) -> bool:
        """Whether the module has such a tensor."""
        return self._source.has(self._fused(name))

    def take_bits(self, name: str, shape: Sequence[int]) -> Parameter:
        """A weight of the model's dtype."""
        found = tensors.converted(self, name, self.stored(name, [shape], tensors.FLOATS))
        return bridge.bits_parameter(name, found)

    def stored(
        self, name: str, shapes: Sequence[Sequence[int]], dtypes: Sequence[torch.dtype]
    ) -> torch.Tensor:
        """The rows of one layer, or what belongs to the input of all of them."""
        fused = self._fused(name)
        if is_of_input(name.rpartition(".")[2]):
            return self._source.stored(fused, shapes, dtypes)
        whole = [(self._total, *shape[1:]) for shape in shapes]
        start, size = self._rows[name.rpartition(".")[0]]
        return self._source.stored(fused, whole, dtypes).narrow(0, start, size)

    def release(self, name: str) -> None:
        """Nothing: other rows may be in use."""

    def note(self, problem: str) -> None:
        """Adds a problem to those that end the load."""
        self._source.note(problem)

    def place(self, name: str) -> str:
        """Tensor and file, for messages."""
        return self._source.place(self._fused(name))

    def _fused(self, name: str) -> str:
        return f"{self._module}.{name.rpartition('.')[2]}"
