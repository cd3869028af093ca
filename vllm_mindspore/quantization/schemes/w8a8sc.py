# SPDX-License-Identifier: Apache-2.0
"""W8A8SC: W8A8 whose weights are compressed, one stream for all layers of an input.

Everything about a stream in our coding is checked before a kernel sees it. On request it is decoded
when it is loaded: the layers are then plain W8A8. What is coded for an NPU goes to it untouched.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from vllm_mindspore import bridge
from vllm_mindspore.device import sparse_weights
from vllm_mindspore.quantization import primitives, sparse_codec
from vllm_mindspore.quantization.schemes import tensors
from vllm_mindspore.quantization.schemes.base import (
    Kind,
    LinearParameters,
    Projections,
    TensorSource,
)
from vllm_mindspore.quantization.sparse_codec import Compressed

if TYPE_CHECKING:
    from mindspore import Parameter

_INFO_SIZE, _INFO_TILING = 5, 8


@dataclass(frozen=True)
class W8A8SC:
    """`weight` int8 [C], `index` int8 [8 * tiles], `deq_scale`, `quant_bias`, `input_scale`,
    `input_offset`, maybe `bias` and `info`, with the name of the fused module.

    Attributes:
        module: that name.
        stated: bytes of stream and index, as the description has them.
        encoded: whether deq_scale is int64.
        bias: whether the files have biases; else quant_bias holds them.
        own_codec: whether weights are in our coding; else they are in an NPU's.
        decode: whether weights are decoded when they are loaded.
        checksum: CRC-32 of the stream, where the description has it.
    """

    module: str
    stated: tuple[int, int]
    encoded: bool
    bias: bool
    own_codec: bool = True
    decode: bool = False
    checksum: int | None = None

    def parameters(self, source: TensorSource, projections: Projections) -> LinearParameters:
        """Stream and index, scales and quant_bias of the sums, the input's scale and offset."""
        inner, outer = projections.in_features, sum(projections.out_features)
        found = self._compressed(source, inner, outer)
        self._check_info(source, inner, outer)
        scale, offset = self._input(source, inner)
        made = _Outputs(
            self._deq_scale(source, outer),
            source.stored(f"{self.module}.quant_bias", [(outer,)], [torch.int32]),
            self._bias(source, projections, outer),
        )
        inputs = (
            bridge.parameter(f"{self.module}.input_scale", scale),
            bridge.parameter(f"{self.module}.input_offset", offset),
        )
        wrong = (_problem(found, outer, inner) if self.own_codec else "") or self._damage(found)
        if wrong:
            source.note(f"{source.place(f'{self.module}.weight')}: {wrong}")
        if not self.own_codec:
            return replace(_compressed(self.module, inner, found, made, inputs), npu_coded=True)
        if not self.decode:
            return _compressed(self.module, inner, found, made, inputs)
        codes = np.zeros((outer, inner), np.int8) if wrong else _decode(found, outer, inner)
        source.release(f"{self.module}.weight")
        return _dense(projections, torch.from_numpy(codes), made, inputs)

    def _compressed(self, source: TensorSource, inner: int, outer: int) -> Compressed:
        size, index_size = self.stated
        stream = source.stored(f"{self.module}.weight", [(size,)], [torch.int8])
        name, expected = f"{self.module}.index", sparse_codec.index_bytes(outer, inner)
        index = source.stored(name, [(expected,)], [torch.int8])
        if index_size != expected:
            source.note(
                f"tensor {name}: the description says {index_size} bytes; expected {expected}, 8 "
                f"for each tile of {outer} x {inner} weights"
            )
        return Compressed(stream.numpy(), index.numpy())

    def _damage(self, found: Compressed) -> str:
        """Flipped bits of values, which make other values."""
        if self.checksum is None:
            return ""
        checksum = zlib.crc32(found.stream.data)
        if checksum == self.checksum:
            return ""
        return f"expected CRC-32 {self.checksum}, which the description says, found {checksum}"

    def _check_info(self, source: TensorSource, inner: int, outer: int) -> None:
        """What compressors of NPUs write beside the index; nothing here needs it."""
        name = f"{self.module}.info"
        if not source.has(name):
            return
        found = source.stored(name, [(_INFO_SIZE,)], [torch.int64]).tolist()
        expected = [_INFO_TILING, _INFO_TILING, inner, outer, 1]
        if found != expected:
            source.note(f"tensor {name}: expected {expected}, found {found}")

    def _input(self, source: TensorSource, inner: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and offset, float32 [K]."""
        shapes = [(inner,), (1,)]
        name = f"{self.module}.input_scale"
        scale = source.stored(name, shapes, tensors.FLOATS).to(torch.float16).to(torch.float32)
        tensors.require(source, name, scale, "finite numbers above 0", tensors.is_positive)
        offset = source.stored(f"{self.module}.input_offset", shapes, [torch.int8])
        return scale.expand(inner).contiguous(), offset.float().expand(inner).contiguous()

    def _deq_scale(self, source: TensorSource, outer: int) -> torch.Tensor:
        """float32 [N]; as the files have it beside an NPU's coding."""
        name = f"{self.module}.deq_scale"
        kinds = [torch.int64 if self.encoded else torch.float32]
        if not self.own_codec:
            kinds = [torch.int64, torch.float32]
        stored = values = source.stored(name, [(outer,)], kinds)
        if stored.dtype == torch.int64:
            values = torch.from_numpy(primitives.decode_deq_scale(stored.numpy()).copy())
        tensors.require(source, name, values, "finite numbers", torch.isfinite)
        return values if self.own_codec else stored

    def _bias(
        self, source: TensorSource, projections: Projections, outer: int
    ) -> torch.Tensor | None:
        if not projections.bias:
            return None
        if not self.bias:
            return torch.zeros(outer, dtype=source.dtype)
        name = f"{self.module}.bias"
        return tensors.converted(source, name, source.stored(name, [(outer,)], tensors.FLOATS))


@dataclass(frozen=True)
class _Outputs:
    """What belongs to the outputs N of all layers together."""

    deq_scale: torch.Tensor
    quant_bias: torch.Tensor
    bias: torch.Tensor | None


def _decode(found: Compressed, outer: int, inner: int) -> primitives.Int8s:
    return sparse_weights.decode(found.stream, found.index, outer, inner)


def _problem(found: Compressed, outer: int, inner: int) -> str:
    try:
        sparse_weights.validate(found.stream, found.index, outer, inner)
    except ValueError as error:
        return str(error)
    return ""


def _compressed(
    module: str,
    inner: int,
    found: Compressed,
    outputs: _Outputs,
    inputs: tuple[Parameter, Parameter],
) -> LinearParameters:
    biases: tuple[Parameter, ...] = ()
    if outputs.bias is not None:
        biases = (bridge.bits_parameter(f"{module}.bias", outputs.bias),)
    return LinearParameters(
        Kind.DIVIDE,
        inner,
        (bridge.parameter(f"{module}.weight", torch.from_numpy(found.stream)),),
        biases,
        (bridge.parameter(f"{module}.deq_scale", outputs.deq_scale),),
        (bridge.parameter(f"{module}.quant_bias", outputs.quant_bias),),
        *inputs,
        indexes=(bridge.parameter(f"{module}.index", torch.from_numpy(found.index)),),
    )


def _dense(
    projections: Projections,
    codes: torch.Tensor,
    outputs: _Outputs,
    inputs: tuple[Parameter, Parameter],
) -> LinearParameters:
    """Each layer its rows."""

    def rows(part: str, values: torch.Tensor) -> tuple[Parameter, ...]:
        split = torch.split(values, list(projections.out_features))
        return tuple(
            bridge.bits_parameter(f"{name}.{part}", rows)
            for name, rows in zip(projections.names, split, strict=True)
        )

    return LinearParameters(
        Kind.DIVIDE,
        projections.in_features,
        rows("weight", codes),
        () if outputs.bias is None else rows("bias", outputs.bias),
        rows("deq_scale", outputs.deq_scale),
        rows("quant_bias", outputs.quant_bias),
        *inputs,
    )
