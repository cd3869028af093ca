# SPDX-License-Identifier: Apache-2.0
"""int8 codes, sums and values equal quantization/primitives.py to the last bit, at every size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from ops.tests.native import (
    DENSE,
    Native,
    NativeError,
    Tensor,
    empty,
    misaligned,
    tensor,
    with_row_gap,
)
from vllm_mindspore.quantization import primitives

# Twice the elements of the widest step (64 codes), and some.
EVERY_TAIL = range(1, 133)
ROWS = (1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 15, 16, 17, 20, 21, 31, 32, 33, 47, 48, 49, 97)
Codes = npt.NDArray[np.int8]


def codes(rng: np.random.Generator, *shape: int) -> Codes:
    """Any code, the extremes often: -128 times -128 is where narrow sums overflow."""
    values = rng.integers(-128, 128, shape, np.int8)
    extreme = rng.random(shape) < 0.3
    return np.where(extreme, rng.choice(np.array([-128, 127], np.int8), shape), values)


@dataclass(frozen=True)
class Weight:
    """What one projection has; arrays are None where it has none."""

    weight: Codes
    scale: npt.NDArray[np.float32]
    quant_bias: npt.NDArray[np.int32] | None = None
    bias: Tensor | None = None

    def tensors(self) -> list[Tensor | None]:
        quant_bias = None if self.quant_bias is None else Tensor(self.quant_bias, "int32")
        weight, scale = Tensor(self.weight, "int8"), Tensor(self.scale, "float32")
        return [weight, scale, quant_bias, self.bias]


def weight(
    rng: np.random.Generator, cols: int, inner: int, *, dtype: str = "float32", bias: bool = False
) -> Weight:
    quant_bias = rng.integers(-(2**20), 2**20, cols, np.int32)
    scale = rng.uniform(1e-5, 1e-3, cols).astype(np.float32)
    added = tensor(rng.standard_normal(cols), dtype) if bias else None
    return Weight(codes(rng, cols, inner), scale, quant_bias, added)


def linear(
    library: Native,
    x: Codes,
    weights: Sequence[Weight],
    dtype: str,
    token_scale: npt.NDArray[np.float32] | None = None,
) -> Tensor:
    y = empty((x.shape[0], sum(len(w.weight) for w in weights)), dtype)
    scale = None if token_scale is None else Tensor(token_scale, "float32")
    flat = [item for w in weights for item in w.tensors()]
    library.call("int8_linear", Tensor(x, "int8"), scale, len(weights), flat, y)
    return y


def expected(
    x: Codes,
    weights: Sequence[Weight],
    dtype: str,
    token_scale: npt.NDArray[np.float32] | None = None,
) -> Tensor:
    """By the primitives: rounded to the dtype, then the bias added and rounded again."""
    parts = []
    for w in weights:
        sums = primitives.accumulate(x, w.weight)
        if token_scale is None:
            values = primitives.dequantize(sums, w.scale, w.quant_bias)
        else:
            assert w.quant_bias is None
            values = primitives.dequantize_per_token(sums, w.scale, token_scale)
        part = tensor(values, dtype)
        if w.bias is not None:
            part = tensor((part.wide() + w.bias.wide()).astype(np.float32), dtype)
        parts.append(part.array)
    return Tensor(np.concatenate(parts, axis=1), dtype)


@pytest.mark.parametrize("dtype", DENSE)
def test_every_inner_tail(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    for inner in EVERY_TAIL:
        w = weight(rng, 1 + inner % 9, inner)
        for rows in (1 + inner % 7, 13 + inner % 40):
            x = codes(rng, rows, inner)
            found = linear(isa, x, [w], dtype)
            np.testing.assert_array_equal(found.array, expected(x, [w], dtype).array)


def test_every_row_and_column_count(isa: Native, rng: np.random.Generator) -> None:
    for rows in ROWS:
        for cols in (1, 2, 3, 4, 5, 7, 8, 9, 31, 33, 64, 65, 130):
            w, x = weight(rng, cols, 70), codes(rng, rows, 70)
            found = linear(isa, x, [w], "bfloat16")
            np.testing.assert_array_equal(found.array, expected(x, [w], "bfloat16").array)


@pytest.mark.parametrize("rows", [1, 6, 40])
@pytest.mark.parametrize("dtype", DENSE)
def test_several_weights_with_biases(
    isa: Native, dtype: str, rows: int, rng: np.random.Generator
) -> None:
    weights = [weight(rng, cols, 96, dtype=dtype, bias=cols != 7) for cols in (70, 7, 33)]
    x = codes(rng, rows, 96)
    found = linear(isa, x, weights, dtype)
    np.testing.assert_array_equal(found.array, expected(x, weights, dtype).array)


@pytest.mark.parametrize("rows", [1, 6, 40, 200])
@pytest.mark.parametrize("dtype", DENSE)
def test_token_scales(isa: Native, dtype: str, rows: int, rng: np.random.Generator) -> None:
    """Some rows have the scale zero. 200 rows of this length are packed in several groups."""
    inner = 16500 * 2 if rows == 200 else 90
    w = Weight(codes(rng, 33, inner), rng.uniform(1e-3, 1e-2, 33).astype(np.float32))
    scales = rng.uniform(0, 1e-3, rows).astype(np.float32)
    scales[:: max(rows // 3, 2)] = 0
    x = codes(rng, rows, inner)
    found = linear(isa, x, [w, w], dtype, scales)
    np.testing.assert_array_equal(found.array, expected(x, [w, w], dtype, scales).array)


def test_threads_and_blocks(isa: Native, rng: np.random.Generator) -> None:
    """Sizes that are cut into many tasks, in columns and in rows."""
    for rows, cols, inner in ((1, 1500, 512), (6, 700, 300), (250, 40, 200), (200, 300, 257)):
        w, x = weight(rng, cols, inner), codes(rng, rows, inner)
        found = linear(isa, x, [w], "float32")
        np.testing.assert_array_equal(found.array, expected(x, [w], "float32").array)


def test_sums_wrap_like_int32(isa: Native, rng: np.random.Generator) -> None:
    inner = 1 << 17
    w = Weight(np.full((2, inner), -128, np.int8), np.ones(2, np.float32), np.array([0, 5], "i4"))
    x = np.full((20, inner), -128, np.int8)
    with np.errstate(over="ignore"):
        want = np.array([-(2.0**31), -(2.0**31) + 5], np.float32)
    for rows in (1, 20):
        found = linear(isa, x[:rows], [w], "float32").array
        np.testing.assert_array_equal(found, np.broadcast_to(want, (rows, 2)))


@pytest.mark.parametrize("offset", [1, 3, 33])
def test_misaligned_and_strided(isa: Native, offset: int, rng: np.random.Generator) -> None:
    """Weights are mapped from files: any address; rows of x may have gaps."""
    w = weight(rng, 9, 75, dtype="bfloat16", bias=True)
    moved = [misaligned(item, offset) if item is not None else None for item in w.tensors()]
    for rows in (3, 40):
        x = codes(rng, rows, 75)
        gapped = with_row_gap(misaligned(Tensor(x, "int8"), offset), 5)
        y = misaligned(empty((rows, 9), "bfloat16"), offset)
        isa.call("int8_linear", gapped, None, 1, moved, y)
        np.testing.assert_array_equal(y.array, expected(x, [w], "bfloat16").array)


DIVIDE, MULTIPLY, PER_TOKEN = 0, 1, 2  # vmo::CodeKind


def quantized(
    library: Native, x: Tensor, scale: Tensor, offset: Tensor, kind: int = DIVIDE
) -> Codes:
    found = Tensor(np.full(x.array.shape, 99, np.int8), "int8")
    library.call("quantize", x, kind, scale, offset, found, None)
    return found.array.astype(np.int8)


def per_token(
    library: Native, x: Tensor, smooth: Tensor | None = None
) -> tuple[Codes, npt.NDArray[np.float32]]:
    found = Tensor(np.full(x.array.shape, 99, np.int8), "int8")
    scales = empty((len(x.array),), "float32")
    library.call("quantize", x, PER_TOKEN, smooth, None, found, scales)
    return found.array.astype(np.int8), scales.array.astype(np.float32)


def wild(rng: np.random.Generator, rows: int, cols: int, dtype: str) -> Tensor:
    """Values over many magnitudes, halves (ties of a scale of 1), infinities and NaN."""
    values = rng.standard_normal((rows, cols)) * 10.0 ** rng.integers(-3, 5, (rows, cols))
    values = np.where(rng.random((rows, cols)) < 0.3, rng.integers(-300, 300) + 0.5, values)
    special = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], (rows, cols))
    values = np.where(rng.random((rows, cols)) < 0.05, special, values)
    with np.errstate(over="ignore", invalid="ignore"):
        return tensor(values.astype(np.float32), dtype)


def single(x: Tensor) -> npt.NDArray[np.float32]:
    return x.wide().astype(np.float32)


@pytest.mark.parametrize("dtype", DENSE)
def test_static_codes(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    for cols in range(1, 70):
        x = wild(rng, 5, cols, dtype)
        scale = np.where(rng.random(cols) < 0.5, 1.0, rng.uniform(0.01, 3, cols))
        scale = scale.astype(np.float32)
        offset = rng.integers(-300, 300, cols).astype(np.float32)
        with np.errstate(all="ignore"):
            want = primitives.quantize(single(x), scale, offset)
            inverse = primitives.quantize_reciprocal(single(x), scale, offset)
        given = Tensor(scale, "float32"), Tensor(offset, "float32")
        np.testing.assert_array_equal(quantized(isa, x, *given), want)
        np.testing.assert_array_equal(quantized(isa, x, *given, MULTIPLY), inverse)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("dtype", DENSE)
def test_codes_per_token(isa: Native, dtype: str, smooth: bool, rng: np.random.Generator) -> None:
    for cols in range(1, 70):
        x = wild(rng, 5, cols, dtype)
        x.array[2] = 0
        x.array[3:] = tensor(rng.standard_normal((2, cols)), dtype).array
        factors = rng.uniform(0.1, 2, cols).astype(np.float32) if smooth else None
        with np.errstate(all="ignore"):
            want, want_scales = primitives.quantize_per_token(single(x), factors)
        given = None if factors is None else Tensor(factors, "float32")
        found, scales = per_token(isa, x, given)
        np.testing.assert_array_equal(scales, want_scales)
        np.testing.assert_array_equal(found, want)


def test_many_rows_with_gaps(isa: Native, rng: np.random.Generator) -> None:
    x = tensor(rng.standard_normal((700, 65)), "bfloat16")
    found, scales = per_token(isa, with_row_gap(x, 3))
    want, want_scales = primitives.quantize_per_token(single(x))
    np.testing.assert_array_equal(found, want)
    np.testing.assert_array_equal(scales, want_scales)


def test_errors(library: Native, rng: np.random.Generator) -> None:
    x = tensor(rng.standard_normal((2, 8)), "float32")
    ones = Tensor(np.ones(8, np.float32), "float32")
    taken, scales = Tensor(np.zeros((2, 8), np.int8), "int8"), empty((2,), "float32")
    w = weight(rng, 3, 8)
    flat, y = w.tensors(), empty((2, 3), "float32")
    short = Tensor(np.ones(7, np.float32), "float32")
    wide = Tensor(np.ones((3, 8), np.float32), "float32")
    long = [flat[0], ones, *flat[2:]]
    bad: list[tuple[str, str, tuple[object, ...]]] = [
        ("offset is missing", "quantize", (x, 0, ones, None, taken, None)),
        ("scale is missing", "quantize", (x, 0, None, ones, taken, None)),
        ("token_scale is not for", "quantize", (x, 0, ones, ones, taken, scales)),
        ("token_scale is missing", "quantize", (x, 2, None, None, taken, None)),
        ("offset is not for", "quantize", (x, 2, None, ones, taken, scales)),
        (r"scale has shape \[7\]; expected \[8\]", "quantize", (x, 0, short, ones, taken, None)),
        ("unknown kind 3", "quantize", (x, 3, ones, ones, taken, None)),
        ("codes has dtype float32", "quantize", (x, 0, ones, ones, x, None)),
        ("codes has dtype float32", "int8_linear", (x, None, 1, flat, y)),
        ("weight has dtype float32", "int8_linear", (taken, None, 1, [wide, *flat[1:]], y)),
        ("scale is missing", "int8_linear", (taken, None, 1, [flat[0], None, None, None], y)),
        (r"shape \[8\]; expected \[3\]", "int8_linear", (taken, None, 1, long, y)),
        ("got 4 weights", "int8_linear", (taken, None, 4, flat * 4, y)),
        ("expected 6 elements", "int8_linear", (taken, None, 1, flat, x)),
        ("token_scale has shape", "int8_linear", (taken, ones, 1, flat, y)),
    ]  # fmt: skip
    for message, name, arguments in bad:
        with pytest.raises(NativeError, match=message):
            library.call(name, *arguments)
