# SPDX-License-Identifier: Apache-2.0
"""What every scheme is given and gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from mindspore import Parameter


@dataclass(frozen=True)
class Projections:
    """One to three linear layers of the same input, which one kernel computes together.

    Attributes:
        names: their modules.
        in_features: K.
        out_features: N of each.
        bias: whether the model gives them biases.
    """

    names: tuple[str, ...]
    in_features: int
    out_features: tuple[int, ...]
    bias: bool = False

    def parts(self) -> list[tuple[str, int]]:
        """Name and N of each."""
        return list(zip(self.names, self.out_features, strict=True))


class TensorSource(Protocol):
    """What schemes use of the loader's `ParameterSource`, which says what each does."""

    dtype: torch.dtype
    """Of the model's floats."""

    def has(self, name: str) -> bool:
        """Whether there is a tensor `name`."""

    def take_bits(self, name: str, shape: Sequence[int]) -> Parameter:
        """A weight of the model's dtype."""

    def stored(
        self, name: str, shapes: Sequence[Sequence[int]], dtypes: Sequence[torch.dtype]
    ) -> torch.Tensor:
        """A tensor as it is stored, in one of these shapes and dtypes."""

    def note(self, problem: str) -> None:
        """Adds a problem to those that end the load."""


class Scheme(Protocol):
    """How one kind of linear layer is stored."""

    def parameters(self, source: TensorSource, projections: Projections) -> list[Parameter]:
        """What the kernels take, in their order (ops/core/projection.h).

        Notes what is missing or different with the source, whose `finish` reports it.
        """


def biases(source: TensorSource, projections: Projections) -> list[Parameter]:
    """The float biases, which are added to finished outputs."""
    if not projections.bias:
        return []
    return [source.take_bits(f"{name}.bias", (size,)) for name, size in projections.parts()]
