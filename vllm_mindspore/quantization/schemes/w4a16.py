# SPDX-License-Identifier: Apache-2.0
"""W4A16 as Golden Stick packs it: int4 weights for activations in bfloat16 or float16.

Files hold the weights turned, [K, N / 2] bytes of two outputs each, the even one in the low half.
Kernels read along K, so the bytes are put in another order once, when they are loaded: memory of
as many bytes as the file has, whose mapped pages the system can then drop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vllm_mindspore import bridge
from vllm_mindspore.quantization.primitives import INT4_BLOCK
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
    """`weight` int8 [K, N / 2], `weight_scale`, maybe `weight_offset` and `bias`."""

    form: Form

    def parameters(self, source: TensorSource, projections: Projections) -> LinearParameters:
        """The weights in blocks along K and their scales."""
        found = weight_scales.read(source, projections, self.form)
        inner = projections.in_features
        return LinearParameters(
            Kind.WEIGHT_INT4,
            inner,
            tuple(_weight(source, name, inner, size) for name, size in projections.parts()),
            biases(source, projections),
            found.scales,
            offsets=found.offsets,
            group_size=found.group_size,
        )


def _weight(source: TensorSource, name: str, inner: int, size: int) -> Parameter:
    full = f"{name}.weight"
    if size % 2:
        source.note(f"tensor {full}: expected an even number of outputs in pairs, found {size}")
    stored = source.stored(full, [(inner, size // 2)], [torch.int8])
    return bridge.parameter(full, in_blocks(stored))


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


def _fill(packed: torch.Tensor, out: torch.Tensor) -> None:
    """A part [K, pairs] into its blocks [pairs, 2, blocks, 32]."""
    filled = torch.nn.functional.pad(packed, (0, 0, 0, -len(packed) % INT4_BLOCK))
    low, high = filled.T.contiguous().view(len(out), -1, 2, INT4_BLOCK // 2).unbind(2)
    out[:, 0] = (low & 0xF) | (high << 4)
    out[:, 1] = (low >> 4) | (high & 0xF0)
