# SPDX-License-Identifier: Apache-2.0
"""Gather, cache writes, casts, copies and splits: exact operations, compared exactly."""

from __future__ import annotations

import numpy as np
import pytest

from ops.tests.native import (
    DENSE,
    DTYPE_CODES,
    Native,
    NativeError,
    Tensor,
    empty,
    misaligned,
    tensor,
    to_bfloat16,
    with_row_gap,
)

NUMPY_TYPES = tuple(name for name in DTYPE_CODES if name != "bfloat16")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "complex128"])
@pytest.mark.parametrize("index", ["int32", "int64"])
def test_gather(library: Native, dtype: str, index: str, rng: np.random.Generator) -> None:
    table = tensor(rng.integers(-9, 9, (4, 5, 3, 2)), dtype)
    picks = rng.integers(-3, 3, (4, 2, 2))
    for axis, batch in ((0, 0), (2, 0), (-1, 0), (2, 1), (1, 1)):
        extent = table.array.shape[axis]
        ids = Tensor((picks % extent if batch else picks[0] % extent).astype(index), index)
        if batch:
            expected = np.stack(
                [np.take(table.array[i], ids.array[i], axis=axis - 1) for i in range(4)]
            )
        else:
            expected = np.take(table.array, ids.array, axis=axis)
        out = empty(expected.shape, dtype)
        library.call("gather", table, ids, axis, batch, out)
        np.testing.assert_array_equal(out.array, expected)


def test_gather_strided(library: Native, rng: np.random.Generator) -> None:
    table = with_row_gap(misaligned(tensor(rng.standard_normal((6, 7)), "float16"), 2), 3)
    ids = Tensor(np.arange(12, dtype=np.int32)[::2] % 6, "int32")
    out = empty((6, 7), "float16")
    library.call("gather", table, ids, 0, 0, out)
    np.testing.assert_array_equal(out.array, table.array[ids.array])


def test_gather_large_enough_for_threads(library: Native, rng: np.random.Generator) -> None:
    table = tensor(rng.standard_normal((50, 700)), "float32")
    ids = rng.integers(0, 50, 300).astype(np.int32)
    out = empty((300, 700), "float32")
    library.call("gather", table, Tensor(ids, "int32"), 0, 0, out)
    np.testing.assert_array_equal(out.array, table.array[ids])


@pytest.mark.parametrize("dtype", [*DENSE, "int8"])
@pytest.mark.parametrize("index", ["int32", "int64"])
def test_reshape_and_cache(
    library: Native, dtype: str, index: str, rng: np.random.Generator
) -> None:
    caches = [tensor(rng.integers(-9, 9, (5, 16, 2, 7)), dtype) for _ in range(2)]
    key = with_row_gap(tensor(rng.integers(-9, 9, (4, 14)), dtype), 3)
    value = tensor(rng.integers(-9, 9, (4, 2, 7)), dtype)
    slots = np.array([79, -1, 3, 0], index)
    expected = [cache.array.copy() for cache in caches]
    for row, slot in enumerate(slots):
        if slot >= 0:
            expected[0][slot // 16, slot % 16] = key.array[row].reshape(2, 7)
            expected[1][slot // 16, slot % 16] = value.array[row]
    library.call("reshape_and_cache", key, value, *caches, Tensor(slots, index))
    for cache, wanted in zip(caches, expected, strict=True):
        np.testing.assert_array_equal(cache.array, wanted)


def test_bad_slot_writes_nothing(library: Native) -> None:
    caches = [tensor(np.zeros((2, 16, 1, 4)), "float32") for _ in range(2)]
    rows = tensor(np.ones((2, 4)), "float32")
    with pytest.raises(NativeError, match=r"slot_mapping\[1\] is 32; expected less than .* 32"):
        library.call(
            "reshape_and_cache", rows, rows, *caches, Tensor(np.array([0, 32], np.int32), "int32")
        )
    assert not caches[0].array.any()
    assert not caches[1].array.any()


def cast(library: Native, source: Tensor, dtype: str) -> np.ndarray:
    out = empty(source.array.shape, dtype)
    library.call("cast", source, out)
    return out.array


@pytest.mark.parametrize("source", NUMPY_TYPES)
def test_cast_between_numpy_types(library: Native, source: str) -> None:
    """Small values are exact in every type; bool is "not zero"."""
    values = np.array([0, 1, 2, 100, 7] if source != "bool" else [0, 1, 1, 0, 1])
    if np.dtype(source).kind in "ifc" and source != "bool":
        values = np.append(values, [-3, -100])
    given = tensor(values, source)
    for target in NUMPY_TYPES:
        if np.dtype(target).kind == "c" or np.dtype(source).kind != "c":
            expected = given.array.astype(target)
        else:
            expected = given.array.real.astype(target)
        np.testing.assert_array_equal(cast(library, given, target), expected)


@pytest.mark.parametrize("source", NUMPY_TYPES)
def test_cast_to_and_from_bfloat16(library: Native, source: str) -> None:
    values = np.array([0, 1, 100]) if source != "bool" else np.array([0, 1, 1])
    given = tensor(values, source)
    bits = to_bfloat16(values.astype(np.float32))
    np.testing.assert_array_equal(cast(library, given, "bfloat16"), bits)
    np.testing.assert_array_equal(cast(library, Tensor(bits, "bfloat16"), source), given.array)


def test_float_rounding_matches_numpy(library: Native, rng: np.random.Generator) -> None:
    """Every exponent, halfway cases, subnormals, infinities and NaN."""
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint64).astype(np.uint32)
    halfway = (np.arange(0x7F80, dtype=np.uint32) << 16) + 0x8000
    values = np.concatenate([bits, halfway]).view(np.float32)
    given = Tensor(values, "float32")
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    result = cast(library, given, "float16")
    nan = np.isnan(values)
    np.testing.assert_array_equal(result[~nan], half[~nan])
    assert np.isnan(result[nan]).all()
    wide = cast(library, Tensor(half, "float16"), "float32")
    np.testing.assert_array_equal(wide, half.astype(np.float32))
    np.testing.assert_array_equal(cast(library, given, "bfloat16"), to_bfloat16(values))


def test_float_to_integer_edges(library: Native) -> None:
    given = tensor([np.nan, 1e30, -1e30, 300.7, -1.9], "float64")
    limits = np.iinfo(np.int64)
    np.testing.assert_array_equal(
        cast(library, given, "int64"), [0, limits.max, limits.min, 300, -1]
    )
    np.testing.assert_array_equal(cast(library, given, "uint8")[3:], [44, 255])
    np.testing.assert_array_equal(cast(library, given, "bool"), [True] * 5)


@pytest.mark.parametrize("source", ["float16", "bfloat16", "float32", "float64"])
def test_float_to_int32_edges(library: Native, source: str) -> None:
    """What does not fit is the smallest int32, as MindSpore's own kernel gives."""
    least = np.iinfo(np.int32).min
    given = tensor([np.nan, np.inf, -np.inf, -2.5, 0.9], source)
    np.testing.assert_array_equal(cast(library, given, "int32"), [least] * 3 + [-2, 0])
    if source != "float16":
        given = tensor([2.0**31, -(2.0**31), 2.0**32 + 2.0**30, -1e30, 2.0**30], source)
        np.testing.assert_array_equal(cast(library, given, "int32"), [least] * 4 + [2**30])
    if source == "float64":
        given = tensor([2147483647.9, -2147483648.9, -2147483649.0], source)
        np.testing.assert_array_equal(cast(library, given, "int32"), [2**31 - 1, least, least])


@pytest.mark.parametrize("dtype", ["bfloat16", "int64", "bool"])
def test_copy_and_split(library: Native, dtype: str, rng: np.random.Generator) -> None:
    x = tensor(rng.integers(0, 2, (6, 5, 8)), dtype)
    turned = Tensor(x.array.transpose(2, 0, 1)[::2], dtype)
    out = empty(turned.array.shape, dtype)
    library.call("copy", turned, out)
    np.testing.assert_array_equal(out.array, turned.array)
    for axis, sizes in ((2, (3, 4, 1)), (1, (5,)), (0, (1, 5)), (-1, (8, 0))):
        outs = [
            empty(np.moveaxis(np.empty((n, *np.delete(x.array.shape, axis))), 0, axis).shape, dtype)
            for n in sizes
        ]
        library.call("split", x, axis, len(sizes), outs)
        parts = np.split(x.array, np.cumsum(sizes)[:-1], axis)
        for part, expected in zip(outs, parts, strict=True):
            np.testing.assert_array_equal(part.array, expected)
