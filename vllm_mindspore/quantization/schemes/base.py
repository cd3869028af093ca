# SPDX-License-Identifier: Apache-2.0
"""What every scheme is given and gives."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from vllm_mindspore import bridge

if TYPE_CHECKING:
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

    def release(self, name: str) -> None:
        """Frees what holds only tensor `name`, which was copied."""

    def note(self, problem: str) -> None:
        """Adds a problem to those that end the load."""

    def place(self, name: str) -> str:
        """Tensor and file, for messages."""


class Kind(enum.IntEnum):
    """How layers are computed. The values are those of ProjectionKind (ops/core/projection.h)."""

    FLOAT = -1
    """x . W^T"""
    DIVIDE = 0
    """int8 codes of x / scale + offset."""
    MULTIPLY = 1
    """int8 codes of x * scale + offset."""
    PER_TOKEN = 2
    """int8 codes of x * scale by the largest magnitude of each row."""
    WEIGHT_INT8 = 3
    """x . ((W + offset) * scale)^T in floats, W of int8 codes."""
    WEIGHT_INT4 = 4
    """The same, W of int4 codes in blocks (`primitives.int4_blocks`)."""


TILE_BITMAP = 1
"""How compressed weights are coded: WeightCoding::kTileBitmap (ops/core/projection.h)."""


@dataclass(frozen=True)
class LinearParameters:
    """One to three linear layers of the same input; tuples have one element for each.

    Attributes:
        kind: what the others mean.
        in_features: K.
        weights: [N, K] in the model's dtype, or int8; int4 [N, 32 * ceil(K / 64)] bytes; compressed
            ones are streams int8 [C] (docs/sparse_quant_format.md), of which one may hold the
            outputs of several layers: tuples then have one element for each stream.
        biases: [N] in the model's dtype, added to finished outputs; empty without biases.
        scales: float32 [N] that int32 sums, or codes, are multiplied with; of groups [N, groups].
        offsets: like scales, added to the codes of weights before; empty for symmetric ones.
        quant_biases: int32 [N], added to the sums before; of static scales.
        input_scale: float32 [K] of x (see `Kind`).
        input_offset: float32 [K] of x; of static scales.
        beta: float32 [K], what `input_offset` adds to x beside a whole number; None: nothing.
        group_size: codes along K that share a scale; 0: all of them.
        indexes: int8 [8 * tiles], of compressed weights; empty for others. N is that of the scales.
        npu_coded: they are in an NPU's coding, for its primitive alone; scales may be int64.
    """

    kind: Kind
    in_features: int
    weights: tuple[Parameter, ...]
    biases: tuple[Parameter, ...] = ()
    scales: tuple[Parameter, ...] = ()
    quant_biases: tuple[Parameter, ...] = ()
    input_scale: Parameter | None = None
    input_offset: Parameter | None = None
    offsets: tuple[Parameter, ...] = ()
    group_size: int = 0
    indexes: tuple[Parameter, ...] = ()
    beta: Parameter | None = None
    npu_coded: bool = False

    @property
    def weight_only(self) -> bool:
        """Whether activations are floats and weights are not."""
        return self.kind in (Kind.WEIGHT_INT8, Kind.WEIGHT_INT4)

    def fused(self) -> list[Parameter]:
        """The list that fused kernels take (ops/core/projection.h).

        Raises:
            ValueError: weights are in the coding of an NPU, which no kernel of ours reads.
        """
        if self.npu_coded:
            raise ValueError(
                f"{self.weights[0].name}: the primitive chain alone computes weights in an NPU's "
                "coding; set VLLM_MS_FUSED_KERNELS=0"
            )
        inputs = [part for part in (self.input_scale, self.input_offset) if part is not None]
        outputs = [*self.scales, *self.offsets, *self.quant_biases]
        found = [*self.weights, *self.indexes, *self.biases, *outputs, *inputs]
        return found if self.kind is Kind.FLOAT else [self._descriptor(), *found]

    def _descriptor(self) -> Parameter:
        values = [self.kind, self.in_features, self.group_size, int(bool(self.offsets))]
        values += [TILE_BITMAP] * len(self.indexes)
        name = f"{self.weights[0].name}.descriptor"
        return bridge.parameter(name, torch.tensor(values, dtype=torch.int32))


class Scheme(Protocol):
    """How one kind of linear layer is stored."""

    def parameters(self, source: TensorSource, projections: Projections) -> LinearParameters:
        """The layers' parameters.

        Notes what is missing or different with the source, whose `finish` reports it.
        """


def biases(source: TensorSource, projections: Projections) -> tuple[Parameter, ...]:
    """The float biases, which are added to finished outputs."""
    if not projections.bias:
        return ()
    return tuple(source.take_bits(f"{name}.bias", (size,)) for name, size in projections.parts())
