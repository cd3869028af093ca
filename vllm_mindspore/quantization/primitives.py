# SPDX-License-Identifier: Apache-2.0
"""Arithmetic of int8 and int4 linear layers in numpy: what kernels, loaders and writers must equal.

Weights are [N, K] (out, in), activations x [M, K], and a layer computes x . W^T. Everything rounds
to nearest, halves to even. Functions that a kernel mirrors work in float32 whatever the dtype of x,
one rounding per operation, so that a kernel can be equal to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Int8s = npt.NDArray[np.int8]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

INT8_MIN, INT8_MAX = -128, 127
INT4_MIN, INT4_MAX = -8, 7
INT4_BLOCK = 64
"""Elements along K that lie together in memory for the kernels."""


@dataclass(frozen=True)
class ActivationScale:
    """Per-tensor parameters of x: code = round(x / scale + offset), x = (code - offset) * scale.

    The offset is a whole number. It may lie outside int8 where all of x has one sign and the range
    was not widened to hold zero.
    """

    scale: float
    offset: int


def activation_scale(low: float, high: float, *, with_zero: bool) -> ActivationScale:
    """Parameters that map [low, high] onto the 256 codes.

    `with_zero` widens the range to hold zero first, as ModelSlim does; Golden Stick does not. An
    empty range (low == high) has scale 1 and offset 0. Raises ValueError if the range is reversed
    or not finite.
    """
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise ValueError(f"expected finite low <= high, found low={low}, high={high}")
    if with_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return ActivationScale(1.0, 0)
    scale = (high - low) / (INT8_MAX - INT8_MIN)
    return ActivationScale(scale, round(INT8_MIN - low / scale))


def quantize(x: Floats, scale: Floats | float, offset: npt.ArrayLike = 0) -> Int8s:
    """Codes clip(round(x / scale + offset)); scale and offset broadcast against x [.., K]."""
    scaled = _single(x) / _single(scale)
    return _codes(scaled + _single(offset))


def quantize_reciprocal(x: Floats, inverse_scale: Floats | float, offset: npt.ArrayLike) -> Int8s:
    """Codes clip(round(x * inverse_scale + offset)): the form whose files hold 1 / scale."""
    scaled = _single(x) * _single(inverse_scale)
    return _codes(scaled + _single(offset))


def restore(codes: Int8s, scale: Floats, offset: Floats) -> npt.NDArray[np.float32]:
    """What codes of `quantize` stand for: (codes - offset) * scale, both broadcast against them."""
    return _single((_single(codes) - _single(offset)) * _single(scale))


def quantize_per_token(
    x: Floats, smooth: Floats | None = None
) -> tuple[Int8s, npt.NDArray[np.float32]]:
    """Codes of x [M, K] * smooth [K], symmetric, and the scale of each row, float32 [M].

    A row's scale is its largest magnitude / 127. A row of zeros has codes and scale zero; one that
    holds NaN or infinity has codes zero and the scale NaN.
    """
    scaled = _single(x) if smooth is None else _single(x) * _single(smooth)
    scales = _single(np.abs(scaled).max(axis=-1, initial=0.0) / np.float32(INT8_MAX))
    scales = np.where(np.isfinite(scales), scales, np.float32(np.nan))
    divisors = np.where(scales == 0, np.float32(1), scales)[..., None]
    return _codes(scaled / divisors), scales


def accumulate(codes: Int8s, weight: Int8s) -> Int32s:
    """codes [M, K] . weight [N, K]^T, exact; wraps like int32 beyond K = 2^17."""
    sums: Int32s = codes.astype(np.int32) @ weight.astype(np.int32).T
    return sums


def dequantize(
    sums: Int32s, deq_scale: Floats, quant_bias: Int32s | None = None
) -> npt.NDArray[np.float32]:
    """(sums [M, N] + quant_bias [N]) * deq_scale [N] in float32, of a layer with static scales."""
    biased = sums if quant_bias is None else sums + quant_bias
    return _single(biased) * _single(deq_scale)


def dequantize_per_token(
    sums: Int32s, weight_scale: Floats, token_scale: Floats
) -> npt.NDArray[np.float32]:
    """sums [M, N] * weight_scale [N] * token_scale [M] in float32, in this order."""
    return _single(_single(sums) * _single(weight_scale) * _single(token_scale)[:, None])


def weight_scale(weight: Floats, *, steps: int = 255, axis: int = -1) -> npt.NDArray[np.float64]:
    """Symmetric scale of each output channel: 2 * max|W| / steps.

    255 is Golden Stick's, which reaches the code -128; 254 gives ModelSlim's max|W| / 127. A
    channel of zeros has scale 1.
    """
    largest = np.abs(weight.astype(np.float64)).max(axis=axis)
    return np.where(largest == 0, 1.0, 2 * largest / steps)


def quantize_weight(weight: Floats, scale: Floats, *, bits: int = 8) -> Int8s:
    """Codes clip(round(W [N, K] / scale)), in float64; scale [N] or [N, K / group].

    Raises ValueError where K is no multiple of the number of groups, or bits not 4 or 8.
    """
    least, most = _code_range(bits)
    codes = np.rint(weight.astype(np.float64) / _spread(scale, weight.shape[-1]))
    return np.clip(codes, least, most).astype(np.int8)


def dequantize_weight(
    codes: Int8s, scale: Floats, offset: npt.NDArray[np.number] | None = None
) -> npt.NDArray[np.float32]:
    """(codes [N, K] + offset) * scale in float32; scale and offset [N] or [N, K / group]."""
    inner = codes.shape[-1]
    shifted = _single(codes) if offset is None else _single(codes) + _spread(_single(offset), inner)
    return _single(shifted * _spread(_single(scale), inner))


def folded_offset(weight: Int8s, offset: int) -> Int32s:
    """quant_bias [N] that takes the activations' offset out of the sums: -offset * sum_k W."""
    sums: Int64s = weight.sum(axis=-1, dtype=np.int64)
    return (-int(offset) * sums).astype(np.int32)


def folded_bias(weight: Int8s, offset: int, bias: Floats, deq_scale: Floats) -> Int32s:
    """quant_bias [N] that holds the layer's bias too: round(bias / deq_scale - offset * sum_k W).

    Raises ValueError where that does not fit int32.
    """
    sums = weight.sum(axis=-1, dtype=np.int64)
    folded = np.rint(bias.astype(np.float64) / deq_scale.astype(np.float64) - int(offset) * sums)
    limits = np.iinfo(np.int32)
    if (folded < limits.min).any() or (folded > limits.max).any():
        raise ValueError(
            "a bias divided by its deq_scale exceeds int32, the type of quant_bias; keep the layer "
            "float"
        )
    result: Int32s = folded.astype(np.int32)
    return result


def encode_deq_scale(scale: npt.NDArray[np.float32]) -> Int64s:
    """The int64 form of Ascend's fp16 kernels: the bits of the float32 in the lower half."""
    return np.ascontiguousarray(scale, np.float32).view(np.uint32).astype(np.int64)


def decode_deq_scale(encoded: Int64s) -> npt.NDArray[np.float32]:
    """The float32 scales of that form; ignores the upper half, which writers sign-extend or not."""
    return (encoded & 0xFFFFFFFF).astype(np.uint32).view(np.float32)


def pack_int4(codes: Int8s) -> Int8s:
    """Codes [N, K] in -8 .. 7 -> [K, N / 2]: transposed, even n in the low half of a byte.

    Raises ValueError for an odd N or a code out of range.
    """
    if codes.shape[0] % 2:
        raise ValueError(f"expected an even number of output channels, found {codes.shape[0]}")
    if codes.size and (codes.min() < INT4_MIN or codes.max() > INT4_MAX):
        raise ValueError(f"expected codes in {INT4_MIN} .. {INT4_MAX}")
    columns = np.ascontiguousarray(codes.T).view(np.uint8) & 0xF
    return (columns[:, 0::2] | columns[:, 1::2] << 4).view(np.int8)


def unpack_int4(packed: Int8s) -> Int8s:
    """The codes [N, K] of packed bytes [K, N / 2]."""
    columns = np.empty((packed.shape[0], 2 * packed.shape[1]), np.int8)
    columns[:, 0::2] = (packed.view(np.uint8) << 4).view(np.int8) >> 4
    columns[:, 1::2] = packed >> 4
    return np.ascontiguousarray(columns.T)


def int4_blocks(codes: Int8s) -> Int8s:
    """Codes [N, K] as kernels take them: [N, 32 * ceil(K / 64)].

    Byte i of the 32 bytes of 64 elements holds element i in its low half, element 32 + i in its
    high half; a row is filled up with zeros.
    """
    rows, inner = codes.shape
    blocks = -(-inner // INT4_BLOCK)
    filled = np.zeros((rows, blocks * INT4_BLOCK), np.uint8)
    filled[:, :inner] = codes.view(np.uint8) & 0xF
    halves = filled.reshape(rows, blocks, 2, INT4_BLOCK // 2)
    found: Int8s = (halves[:, :, 0] | halves[:, :, 1] << 4).reshape(rows, -1).view(np.int8)
    return found


def int4_codes(blocks: Int8s, inner: int) -> Int8s:
    """The codes [N, inner] of `int4_blocks`."""
    halves = blocks.reshape(len(blocks), -1, 1, INT4_BLOCK // 2)
    codes = np.concatenate([(halves.view(np.uint8) << 4).view(np.int8) >> 4, halves >> 4], axis=2)
    return np.ascontiguousarray(codes.reshape(len(blocks), -1)[:, :inner])


def _single(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    return np.asarray(values, np.float32)


def _codes(values: npt.NDArray[np.float32]) -> Int8s:
    """Rounded and clipped; NaN has no code and becomes 0."""
    clipped = np.clip(np.rint(values), INT8_MIN, INT8_MAX)
    codes: Int8s = np.nan_to_num(clipped, nan=0.0).astype(np.int8)
    return codes


def _code_range(bits: int) -> tuple[int, int]:
    if bits not in (4, 8):
        raise ValueError(f"expected 4 or 8 bits, found {bits}")
    return (INT4_MIN, INT4_MAX) if bits == 4 else (INT8_MIN, INT8_MAX)


def _spread(values: Floats, inner: int) -> Floats:
    """[N] -> [N, 1]; [N, G] -> [N, inner], each repeated over its group of inner / G elements."""
    if values.ndim == 1:
        return values[:, None]
    groups = values.shape[-1]
    if groups == 0 or inner % groups:
        raise ValueError(f"expected a number of groups that divides {inner}, found {groups}")
    return np.repeat(values, inner // groups, axis=-1)
