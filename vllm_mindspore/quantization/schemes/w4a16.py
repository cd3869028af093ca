# SPDX-License-Identifier: Apache-2.0
"""W4A16 as Golden Stick and ModelSlim pack it: int4 weights for bfloat16 or float16 activations.

Kernels read along K, so the bytes are put in another order once, when they are loaded: memory of
at most as many bytes as the file has, whose mapped pages are given back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vllm_mindspore import bridge
from vllm_mindspore.quantization.description import Tool
from vllm_mindspore.quantization.primitives import INT4_BLOCK, INT4_MAX, INT4_MIN
from vllm_mindspore.quantization.schemes import weight_scales
from vllm_mindspore.quantization.schemes.base import (
    Kind,
    LinearParameters,
    Projections,
    TensorSource,
    biases,
)
from vllm_mindspore.quantization.schemes.weight_scales import Form

if TYPE_CHECKING:
    from mindspore import Parameter

# Rows and columns of a part that is turned: it stays in the second-level cache.
_AT_ONCE = 512


@dataclass(frozen=True)
class W4A16:
    """`weight` int8, `weight_scale`, maybe `weight_offset` and `bias`.

    Golden Stick stores [K, N / 2], two outputs in a byte, the even one in its low half. ModelSlim
    stores [N, K / 2] where each output has one scale, two neighbours along K in a byte, and
    [N / 2, K] with groups, two outputs in a byte; files before its version 1.0.0 have [N, K], a
    byte for each code.
    """

    form: Form
    tool: Tool

    def parameters(self, source: TensorSource, projections: Projections) -> LinearParameters:
        """The weights in blocks along K and their scales."""
        found = weight_scales.read(source, projections, self.form)
        inner, grouped = projections.in_features, found.group_size > 0
        return LinearParameters(
            Kind.WEIGHT_INT4,
            inner,
            tuple(
                self._weight(source, name, inner, size, grouped=grouped)
                for name, size in projections.parts()
            ),
            biases(source, projections),
            found.scales,
            offsets=found.offsets,
            group_size=found.group_size,
        )

    def _weight(
        self, source: TensorSource, name: str, inner: int, size: int, *, grouped: bool
    ) -> Parameter:
        full = f"{name}.weight"
        if size % 2:
            source.note(f"tensor {full}: expected an even number of outputs in pairs, found {size}")
        if self.tool is Tool.GOLDEN_STICK:
            stored = source.stored(full, [(inner, size // 2)], [torch.int8])
            found = in_blocks(stored)
        else:
            shapes = [(size, inner // 2), (size // 2, inner), (size, inner)]
            stored = source.stored(full, shapes, [torch.int8])
            found = _of_modelslim(source, full, stored, shapes, grouped=grouped)
        source.release(full)
        return bridge.parameter(full, found)


def _of_modelslim(
    source: TensorSource,
    full: str,
    stored: torch.Tensor,
    shapes: list[tuple[int, int]],
    *,
    grouped: bool,
) -> torch.Tensor:
    shape = tuple(stored.shape)
    if shape == shapes[2]:
        low, high = (int(end) for end in torch.aminmax(stored))
        if low < INT4_MIN or high > INT4_MAX:
            source.note(
                f"tensor {full}: expected a number from {INT4_MIN} to {INT4_MAX} in each byte, "
                f"found {low} to {high}"
            )
        return rows_in_blocks(stored, lambda codes: codes & 0xF)
    if shape != shapes[grouped]:
        why = "groups" if grouped else "one scale for each output"
        source.note(
            f"tensor {full}: expected shape {list(shapes[grouped])} beside a weight_scale of "
            f"{why}, found {list(shape)}"
        )
    if shape == shapes[1]:
        return in_blocks(stored.T)
    return rows_in_blocks(stored, _halves)


def _halves(pairs: torch.Tensor) -> torch.Tensor:
    return torch.stack((pairs & 0xF, pairs >> 4), 2).flatten(1)


def in_blocks(packed: torch.Tensor) -> torch.Tensor:
    """int8 [K, N / 2] as stored -> int8 [N, 32 * ceil(K / 64)] as `primitives.int4_blocks`."""
    inner, pairs = packed.shape
    blocks = -(-inner // INT4_BLOCK)
    found = torch.empty((pairs, 2, blocks, INT4_BLOCK // 2), dtype=torch.uint8)
    for column in range(0, pairs, _AT_ONCE):
        out = found[column : column + _AT_ONCE]
        for k in range(0, inner, _AT_ONCE):
            part = packed[k : k + _AT_ONCE, column : column + _AT_ONCE].view(torch.uint8)
            _fill(part, out[:, :, k // INT4_BLOCK : (k + _AT_ONCE) // INT4_BLOCK])
    return found.view(2 * pairs, blocks * INT4_BLOCK // 2).view(torch.int8)


def rows_in_blocks(
    stored: torch.Tensor, unpack: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """The same of rows of which `unpack` gives the codes, one in the low half of each byte."""
    parts = []
    for row in range(0, len(stored), _AT_ONCE):
        codes = unpack(stored[row : row + _AT_ONCE].view(torch.uint8))
        filled = torch.nn.functional.pad(codes, (0, -codes.shape[1] % INT4_BLOCK))
        low, high = filled.view(len(codes), -1, 2, INT4_BLOCK // 2).unbind(2)
        parts.append((low | (high << 4)).flatten(1))
    return torch.cat(parts).view(torch.int8)


def _fill(packed: torch.Tensor, out: torch.Tensor) -> None:
    """A part [K, pairs] into its blocks [pairs, 2, blocks, 32]."""
    filled = torch.nn.functional.pad(packed, (0, 0, 0, -len(packed) % INT4_BLOCK))
    low, high = filled.T.contiguous().view(len(out), -1, 2, INT4_BLOCK // 2).unbind(2)
    out[:, 0] = (low & 0xF) | (high << 4)
    out[:, 1] = (low >> 4) | (high & 0xF0)
