# SPDX-License-Identifier: Apache-2.0
"""Scales and offsets of weights that are quantized alone: one per output, or per group along K."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vllm_mindspore import bridge
from vllm_mindspore.quantization.schemes import tensors
from vllm_mindspore.quantization.schemes.base import Projections, TensorSource

if TYPE_CHECKING:
    from mindspore import Parameter

_OFFSETS = [*tensors.FLOATS, torch.int32, torch.int8]


@dataclass(frozen=True)
class Form:
    """How files hold them.

    Attributes:
        group_sizes: what groups may have.
        turned: whether groups are [groups, N] and not [N, groups].
        subtracted: whether offsets are taken off the codes, and not added to them.
    """

    group_sizes: Sequence[int]
    turned: bool
    subtracted: bool = False

    def shapes(self, inner: int, size: int) -> dict[tuple[int, ...], int]:
        """Possible shape -> number of groups, of a weight [size, inner]."""
        found: dict[tuple[int, ...], int] = {(size,): 1, (size, 1): 1}
        for group in self.group_sizes:
            if inner % group == 0:
                count = inner // group
                found.setdefault((count, size) if self.turned else (size, count), count)
        return found


@dataclass(frozen=True)
class WeightScales:
    """What the kernels take, float32 [N] or [N, groups]; no offsets for symmetric weights."""

    scales: tuple[Parameter, ...]
    offsets: tuple[Parameter, ...]
    group_size: int


def read(source: TensorSource, projections: Projections, form: Form) -> WeightScales:
    """`weight_scale` and `weight_offset`, which may be missing, of all projections."""
    inner = projections.in_features
    found = {name: _read_one(source, name, inner, size, form) for name, size in projections.parts()}
    counts = {name: scale[0].numel() for name, (scale, _) in found.items()}
    count, *others = dict.fromkeys(counts.values())
    if others:
        sizes = ", ".join(f"{name}: {inner // groups}" for name, groups in counts.items())
        source.note(f"layers of one input have groups of different sizes ({sizes}); expected one")
    symmetric = not any(offset.any() for _, offset in found.values())
    scales = {f"{name}.weight_scale": scale for name, (scale, _) in found.items()}
    offsets = {f"{name}.weight_offset": offset for name, (_, offset) in found.items()}
    return WeightScales(
        _parameters(scales),
        () if symmetric else _parameters(offsets),
        0 if count == 1 else inner // count,
    )


def _read_one(
    source: TensorSource, name: str, inner: int, size: int, form: Form
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and offset float32 [N], or [N, groups], of a weight [size, inner]."""
    shapes = form.shapes(inner, size)
    full = f"{name}.weight_scale"
    stored = source.stored(full, list(shapes), tensors.FLOATS)
    shape = tuple(stored.shape)
    turned = form.turned and shapes[shape] > 1
    scale = _values(source, full, stored, turned).contiguous()
    if scale.data_ptr() != stored.data_ptr():
        source.release(full)
    if shapes[shape] == 1:
        scale = scale.reshape(size)
    full = f"{name}.weight_offset"
    if not source.has(full):
        return scale, torch.zeros_like(scale)
    offset = _values(source, full, source.stored(full, [shape], _OFFSETS), turned)
    if not offset.any():
        source.release(full)
        return scale, torch.zeros_like(scale)
    offset = -offset if form.subtracted else offset
    return scale, offset.reshape(scale.shape)


def _values(source: TensorSource, full: str, stored: torch.Tensor, turned: bool) -> torch.Tensor:
    tensors.require(source, full, stored, "finite numbers", torch.isfinite)
    values = stored.to(torch.float32)
    return values.T if turned else values


def _parameters(values: Mapping[str, torch.Tensor]) -> tuple[Parameter, ...]:
    return tuple(bridge.parameter(name, tensor.contiguous()) for name, tensor in values.items())
