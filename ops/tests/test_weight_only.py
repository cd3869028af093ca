# SPDX-License-Identifier: Apache-2.0
"""Weights of int8 and int4 codes against quantization/primitives.py in float64: every tail, group,
stride and misalignment."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from ops.tests.native import (
    TINY,
    UNIT_ROUNDOFF,
    Native,
    NativeError,
    Tensor,
    empty,
    misaligned,
    tensor,
    with_row_gap,
)
from vllm_mindspore.device.kernel_library import KernelLibrary
from vllm_mindspore.quantization import primitives

HALVES = ("float16", "bfloat16")
# Twice the elements of a block, and some.
EVERY_TAIL = range(1, 140)
# Float32 sums of K terms: error below a small multiple of sqrt(K) roundoffs of the sum of |terms|.
SUM_FACTOR = 2.0
Floats = npt.NDArray[np.float64]
each_width = pytest.mark.parametrize("bits", [8, 4])
each_dtype = pytest.mark.parametrize("dtype", HALVES)


@dataclass(frozen=True)
class Weight:
    """Codes [N, K] of one projection and what belongs to them."""

    bits: int
    codes: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    offset: npt.NDArray[np.float32] | None = None
    bias: Tensor | None = None

    def tensors(self) -> list[Tensor | None]:
        stored = self.codes if self.bits == 8 else primitives.int4_blocks(self.codes)
        offset = None if self.offset is None else Tensor(self.offset, "float32")
        return [Tensor(stored, "int8"), Tensor(self.scale, "float32"), offset, self.bias]

    def values(self) -> Floats:
        return primitives.dequantize_weight(self.codes, self.scale, self.offset).astype(np.float64)

    def sizes(self) -> Floats:
        """What a weight is summed of: |code| and |offset|, times the scale."""
        offset = None if self.offset is None else np.abs(self.offset)
        wide = np.abs(self.codes.astype(np.float32))  # |-128| is no int8
        return primitives.dequantize_weight(wide, self.scale, offset).astype(np.float64)  # type: ignore[arg-type]


def weight(
    rng: np.random.Generator,
    cols: int,
    inner: int,
    bits: int,
    *,
    group: int = 0,
    offset: bool = False,
    bias: str = "",
) -> Weight:
    limit = 1 << (bits - 1)
    codes = rng.integers(-limit, limit, (cols, inner), np.int8)
    shape = (cols, inner // group) if group else (cols,)
    scale = rng.uniform(1e-3, 1e-1, shape).astype(np.float32)
    offsets = rng.integers(-limit, limit, shape).astype(np.float32) if offset else None
    return Weight(
        bits, codes, scale, offsets, tensor(rng.standard_normal(cols), bias) if bias else None
    )


def linear(
    library: Native, x: Tensor, weights: Sequence[Weight], group: int = 0, out: str | None = None
) -> Tensor:
    y = empty((x.array.shape[0], sum(len(w.codes) for w in weights)), out or x.dtype)
    flat = [item for w in weights for item in w.tensors()]
    library.call("weight_only_linear", x, weights[0].bits, group, len(weights), flat, y)
    return y


def check(x: Tensor, weights: Sequence[Weight], y: Tensor) -> None:
    """One rounding of the result, and what float32 sums of these sizes lose."""
    wide, inner = x.wide(), x.array.shape[-1]
    column = 0
    for w in weights:
        bias = 0.0 if w.bias is None else w.bias.wide()
        exact = wide @ w.values().T + bias
        size = np.abs(wide) @ w.sizes().T + np.abs(bias)
        limit = SUM_FACTOR * UNIT_ROUNDOFF["float32"] * np.sqrt(inner + 1) * size
        # VDPBF16PS flushes subnormal products; they are below 2^-126 each.
        limit += inner * 2.0**-126 if x.dtype == "bfloat16" else 0.0
        limit += UNIT_ROUNDOFF[y.dtype] * np.abs(exact) * (1 + 1e-6) + TINY[y.dtype]
        found = y.wide()[:, column : column + len(w.codes)]
        assert (np.abs(found - exact) <= limit).all()
        column += len(w.codes)
    assert column == y.array.shape[1]


@each_width
@each_dtype
def test_every_inner_tail(isa: Native, bits: int, dtype: str, rng: np.random.Generator) -> None:
    for inner in EVERY_TAIL:
        w = weight(rng, 1 + inner % 9, inner, bits, offset=inner % 3 == 0)
        for rows in (1 + inner % 7, 13 + inner % 40):
            x = tensor(rng.standard_normal((rows, inner)), dtype)
            check(x, [w], linear(isa, x, [w]))


@each_width
@each_dtype
def test_every_row_and_column_count(
    isa: Native, bits: int, dtype: str, rng: np.random.Generator
) -> None:
    for rows in (*range(1, 10), 15, 16, 17, 47, 48, 49, 97):
        for cols in (1, 2, 3, 4, 5, 31, 33, 64, 65, 130):
            x = tensor(rng.standard_normal((rows, 70)), dtype)
            w = weight(rng, cols, 70, bits)
            check(x, [w], linear(isa, x, [w]))


@each_width
@each_dtype
@pytest.mark.parametrize("group", [64, 128, 192, 256])
@pytest.mark.parametrize("offset", [False, True])
def test_groups(
    isa: Native, bits: int, dtype: str, group: int, offset: bool, rng: np.random.Generator
) -> None:
    for groups in (1, 2, 5):
        w = weight(rng, 11, group * groups, bits, group=group, offset=offset)
        for rows in (1, 2, 3, 4, 7, 40):
            x = tensor(rng.standard_normal((rows, group * groups)), dtype)
            check(x, [w], linear(isa, x, [w], group))


@each_width
@each_dtype
@pytest.mark.parametrize("group", [0, 64])
def test_several_weights_with_biases(
    isa: Native, bits: int, dtype: str, group: int, rng: np.random.Generator
) -> None:
    """One without a bias, one with offsets."""
    weights = [
        weight(rng, n, 192, bits, group=group, offset=n == 33, bias="" if n == 7 else dtype)
        for n in (70, 7, 33)
    ]
    for rows in (1, 6, 40):
        x = tensor(rng.standard_normal((rows, 192)), dtype)
        for out in (dtype, "float32"):
            check(x, weights, linear(isa, x, weights, group, out))


@each_width
@each_dtype
def test_threads_and_blocks(isa: Native, bits: int, dtype: str, rng: np.random.Generator) -> None:
    """Sizes that are cut into many tasks, in columns and in rows."""
    for rows, cols, inner in ((1, 1500, 512), (6, 700, 300), (250, 40, 200), (300, 70, 1100)):
        x = tensor(rng.standard_normal((rows, inner)), dtype)
        w = weight(rng, cols, inner, bits)
        check(x, [w], linear(isa, x, [w], out="float32"))


@each_width
@each_dtype
def test_every_code(isa: Native, bits: int, dtype: str) -> None:
    """Each code in each place of a block is read as itself."""
    limit = 1 << (bits - 1)
    codes = np.arange(-limit, limit, dtype=np.int8)[:, None].repeat(64, 1)
    w = Weight(bits, codes, np.ones(len(codes), np.float32))
    x = tensor(np.eye(64), dtype)
    np.testing.assert_array_equal(linear(isa, x, [w], out="float32").array, codes.T)


@each_width
@each_dtype
def test_batch_invariance(
    isa: Native, settings: KernelLibrary, bits: int, dtype: str, rng: np.random.Generator
) -> None:
    """A row's bits do not depend on the other rows or on the threads, except by whether rows are
    packed; if that is switched off, not at all."""
    w = weight(rng, 210, 333, bits, offset=True)
    x = tensor(rng.standard_normal((100, 333)), dtype)
    unpacked = {"bfloat16": 4, "float16": 8} if settings.isa_name() == "amx" else {}
    most = unpacked.get(dtype, 100)  # rows that are not packed
    whole_packed = linear(isa, x, [w], out="float32").array
    settings.set_batch_invariant(True)
    whole = linear(isa, x, [w], out="float32").array
    assert (whole != whole_packed).any() == (most < 100)
    for invariant, count in itertools.product((False, True), (1, 3)):
        settings.set_batch_invariant(invariant)
        settings.set_num_threads(count)
        for rows in (1, 2, 3, 4, 5, 8, 9, 48, 49):
            part = Tensor(x.array[11 : 11 + rows], dtype)
            expected = whole_packed if rows > most and not invariant else whole
            found = linear(isa, part, [w], out="float32").array
            np.testing.assert_array_equal(found, expected[11 : 11 + rows])


@each_width
@each_dtype
def test_offsets_that_bfloat16_would_round(
    isa: Native, bits: int, dtype: str, rng: np.random.Generator
) -> None:
    """Fractions and large numbers, in one of the groups of one output."""
    w = weight(rng, 70, 256, bits, group=64, offset=True)
    assert w.offset is not None
    x = tensor(rng.standard_normal((40, 256)), dtype)
    for bad in (0.3, -129.0, 1e4):
        w.offset[37, 2] = bad
        check(x, [w], linear(isa, x, [w], 64))


@each_width
@each_dtype
@pytest.mark.parametrize("offset", [1, 3, 33])
def test_misaligned_and_strided(
    isa: Native, bits: int, dtype: str, offset: int, rng: np.random.Generator
) -> None:
    """Weights are mapped from files: any address; rows of x and of codes may have gaps."""
    w = weight(rng, 9, 75, bits, offset=True, bias=dtype)
    moved = [misaligned(item, offset) for item in w.tensors() if item is not None]
    moved[0] = with_row_gap(moved[0], 5)
    for rows in (3, 40):
        x = tensor(rng.standard_normal((rows, 75)), dtype)
        gapped = with_row_gap(misaligned(x, offset), 3)
        y = misaligned(empty((rows, 9), dtype), offset)
        isa.call("weight_only_linear", gapped, bits, 0, 1, moved, y)
        check(x, [w], y)


@each_width
def test_special_values(isa: Native, bits: int) -> None:
    """Infinities and NaN reach the result; nothing of a row's padding does."""
    for dtype in HALVES:
        rows = [[np.inf, 1.0, 0.0], [np.nan, 1.0, 0.0], [0.0, 0.0, 0.0]]
        w = Weight(bits, np.array([[1, 2, 3]], np.int8), np.ones(1, np.float32))
        for copies in (1, 6):
            y = linear(isa, tensor(rows * copies, dtype), [w]).wide()
            assert (y[0::3] == np.inf).all()
            assert np.isnan(y[1::3]).all()
            assert (y[2::3] == 0.0).all()


def test_padding_is_not_read_into_results(isa: Native, rng: np.random.Generator) -> None:
    """Whatever lies behind the last element of an int4 row."""
    w = weight(rng, 3, 70, 4)
    x = tensor(rng.standard_normal((20, 70)), "bfloat16")
    clean = w.tensors()
    dirty = Tensor(clean[0].array.copy(), "int8")  # type: ignore[union-attr]
    dirty.array[:, 32 + 6 :] = -1  # low halves of elements 70.. of the second block
    dirty.array[:, 32 : 32 + 6] |= np.int8(-16)  # high halves: elements 96..
    for rows in (2, 20):
        some = Tensor(x.array[:rows], "bfloat16")
        y = empty((rows, 3), "bfloat16")
        isa.call("weight_only_linear", some, 4, 0, 1, [dirty, *clean[1:]], y)
        np.testing.assert_array_equal(y.array, linear(isa, some, [w]).array)


def test_empty(isa: Native, rng: np.random.Generator) -> None:
    w = weight(rng, 4, 8, 8)
    linear(isa, empty((0, 8), "bfloat16"), [w])
    none = Weight(8, np.zeros((4, 0), np.int8), np.ones(4, np.float32))
    assert not linear(isa, empty((3, 0), "float16"), [none]).array.any()


def test_errors(library: Native, rng: np.random.Generator) -> None:
    x, single = (tensor(rng.standard_normal((2, 128)), d) for d in ("bfloat16", "float32"))
    w, y = weight(rng, 3, 128, 8, group=64).tensors(), empty((2, 3), "bfloat16")
    short = Tensor(np.ones(2, np.float32), "float32")
    column = Tensor(np.ones((3, 4), np.float32)[:, ::2], "float32")
    floats = Tensor(np.ones((3, 128), np.float32), "float32")
    bad: list[tuple[str, tuple[object, ...]]] = [
        ("x has dtype float32; weights of codes", (single, 8, 64, 1, w, y)),
        ("got weights of 3 bits; expected 4 or 8", (x, 3, 64, 1, w, y)),
        ("groups of 32 elements; expected a multiple of 64 that divides 128", (x, 8, 32, 1, w, y)),
        ("groups of 192 elements", (x, 8, 192, 1, w, y)),
        ("groups of -64 elements", (x, 8, -64, 1, w, y)),
        ("got 4 weights; expected 1 to 3", (x, 8, 64, 4, w * 4, y)),
        ("weight has dtype float32; expected int8", (x, 8, 64, 1, [floats, *w[1:]], y)),
        ("weight has shape [3, 128]; expected [*, 64]", (x, 4, 64, 1, w, y)),
        ("scale is missing", (x, 8, 64, 1, [w[0], None, None, None], y)),
        ("scale has shape [3, 2]; expected [3, 1]", (x, 8, 128, 1, w, y)),
        ("scale has shape [2]; expected [3]", (x, 8, 0, 1, [w[0], short, None, None], y)),
        ("scale has a stride", (x, 8, 64, 1, [w[0], column, None, None], y)),
        ("offset has shape [2]; expected [3, 2]", (x, 8, 64, 1, [*w[:2], short, None], y)),
        ("bias has dtype float32; expected bfloat16", (x, 8, 64, 1, [*w[:3], short], y)),
        ("expected 6 elements", (x, 8, 64, 1, w, x)),
        ("y has dtype float16; expected bfloat16", (x, 8, 64, 1, w, empty((2, 3), "float16"))),
    ]
    for message, arguments in bad:
        with pytest.raises(NativeError, match=re.escape(message)):
            library.call("weight_only_linear", *arguments)
