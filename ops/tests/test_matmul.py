# SPDX-License-Identifier: Apache-2.0
"""Matrix products against float64: every tail, strides, misalignment, batch invariance."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from ops.tests import reference
from ops.tests.native import (
    DENSE,
    TINY,
    UNIT_ROUNDOFF,
    Native,
    Tensor,
    empty,
    misaligned,
    tensor,
    with_row_gap,
)
from vllm_mindspore.device.kernel_library import KernelLibrary

# Twice the elements of the widest step (32 bfloat16), and some.
EVERY_TAIL = range(1, 70)
# Float32 sums of K terms: error below a small multiple of sqrt(K) roundoffs of sum |x||w|.
SUM_FACTOR = 2.0


def limit(x: Tensor, w: Tensor, exact: np.ndarray, out_dtype: str) -> np.ndarray:
    """Allowed error: one rounding of the result plus the float32 sum."""
    magnitude = np.abs(x.wide()) @ np.abs(w.wide()).T
    inner = x.array.shape[-1]
    sums = SUM_FACTOR * UNIT_ROUNDOFF["float32"] * np.sqrt(inner) * magnitude
    # VDPBF16PS flushes subnormal products; they are below 2^-126 each.
    flushed = inner * 2.0**-126 if x.dtype == "bfloat16" else 0.0
    return UNIT_ROUNDOFF[out_dtype] * np.abs(exact) * (1 + 1e-6) + sums + TINY[out_dtype] + flushed


def linear(library: Native, x: Tensor, w: Tensor, out_dtype: str | None = None) -> Tensor:
    y = empty((x.array.shape[0], w.array.shape[0]), out_dtype or x.dtype)
    library.call("linear", x, 1, [w], None, y)
    return y


def check(x: Tensor, w: Tensor, y: Tensor) -> None:
    exact = x.wide() @ w.wide().T
    assert (np.abs(y.wide() - exact) <= limit(x, w, exact, y.dtype)).all()


@pytest.mark.parametrize("dtype", DENSE)
def test_every_inner_tail(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    for inner in EVERY_TAIL:
        w = tensor(rng.standard_normal((1 + inner % 9, inner)), dtype)
        for rows in (1 + inner % 7, 21 + inner % 30):
            x = tensor(rng.standard_normal((rows, inner)), dtype)
            check(x, w, linear(isa, x, w))


@pytest.mark.parametrize("dtype", DENSE)
def test_every_row_and_column_count(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    for rows in (*range(1, 25), 32, 33, 47, 48, 49, 97):
        for cols in (1, 2, 3, 4, 5, 31, 33, 64, 65, 130):
            x = tensor(rng.standard_normal((rows, 40)), dtype)
            w = tensor(rng.standard_normal((cols, 40)), dtype)
            check(x, w, linear(isa, x, w))


@pytest.mark.parametrize("dtype", DENSE)
def test_threads_and_blocks(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    """Sizes that are cut into many tasks, in columns and in rows."""
    sizes = ((1, 1500, 512), (6, 700, 300), (250, 40, 200), (200, 300, 257))
    for rows, cols, inner in sizes:
        x = tensor(rng.standard_normal((rows, inner)), dtype)
        w = tensor(rng.standard_normal((cols, inner)), dtype)
        check(x, w, linear(isa, x, w))
        check(x, w, linear(isa, x, w, "float32"))


@pytest.mark.parametrize("dtype", DENSE)
def test_groups_of_packed_rows(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    """So long rows are packed a few at a time; the last group has as few as products from x."""
    x = with_row_gap(tensor(rng.standard_normal((200, 16500)), dtype), 3)
    w = tensor(rng.standard_normal((9, 16500)), dtype)
    y = linear(isa, x, w, "float32")
    check(x, w, y)
    tail = linear(isa, Tensor(x.array[170:], dtype), w, "float32")
    np.testing.assert_array_equal(tail.array, y.array[170:])
    fused, chain = empty((200, 9), dtype), empty((200, 9), dtype)
    isa.call("gate_up_swiglu", x, w, w, fused)
    product = linear(isa, x, w).array
    isa.call("swiglu", Tensor(np.concatenate([product, product], 1), dtype), -1, chain)
    np.testing.assert_array_equal(fused.array, chain.array)


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("offset", [2, 6, 33])
def test_misaligned(isa: Native, dtype: str, offset: int, rng: np.random.Generator) -> None:
    """Any address, even an odd one: weights are mapped from files."""
    w = misaligned(tensor(rng.standard_normal((9, 75)), dtype), offset + 2)
    for rows in (3, 23):
        x = misaligned(tensor(rng.standard_normal((rows, 75)), dtype), offset)
        y = misaligned(empty((rows, 9), dtype), offset + 4)
        isa.call("linear", x, 1, [w], None, y)
        check(x, w, y)


@pytest.mark.parametrize("dtype", DENSE)
def test_strided_operands(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    """Row gaps are read in place, transposed x is copied; the gaps hold NaN patterns."""
    w = with_row_gap(tensor(rng.standard_normal((9, 66)), dtype), 5)
    for rows in (5, 23):
        x = with_row_gap(tensor(rng.standard_normal((rows, 66)), dtype), 3)
        check(x, w, linear(isa, x, w))
        turned = Tensor(tensor(rng.standard_normal((66, rows)), dtype).array.T, dtype)
        check(turned, w, linear(isa, turned, w))


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [4, 23])
def test_several_weights(
    isa: Native, dtype: str, bias: bool, rows: int, rng: np.random.Generator
) -> None:
    x = tensor(rng.standard_normal((rows, 100)), dtype)
    ws = [tensor(rng.standard_normal((n, 100)), dtype) for n in (70, 9, 33)]
    bs = [tensor(rng.standard_normal(n), dtype) for n in (70, 9, 33)]
    for out_dtype in (dtype, "float32"):
        y = empty((rows, 112), out_dtype)
        isa.call("linear", x, 3, ws, bs if bias else None, y)
        joined = Tensor(np.concatenate([w.array for w in ws]), dtype)
        exact = x.wide() @ joined.wide().T
        exact += np.concatenate([b.wide() for b in bs]) if bias else 0.0
        extra = UNIT_ROUNDOFF["float32"] * 4  # the addition of the bias, in float32
        assert (np.abs(y.wide() - exact) <= limit(x, joined, exact, out_dtype) + extra).all()


# Batch sizes whose bfloat16 rows are packed, by instruction set; all others are computed alike.
PACKED: dict[str, Callable[[int], bool]] = {
    "amx": lambda rows: rows > 4,
    "avx512_bf16": lambda rows: 12 < rows <= 16 or rows > 20,
}


@pytest.mark.parametrize("dtype", DENSE)
def test_batch_invariance(
    isa: Native, settings: KernelLibrary, dtype: str, rng: np.random.Generator
) -> None:
    """A row's bits do not depend on the other rows or on the threads, except by whether rows are
    packed; if that is switched off, not at all."""
    x = tensor(rng.standard_normal((300, 333)), dtype)
    w = tensor(rng.standard_normal((210, 333)), dtype)
    packed = PACKED.get(settings.isa_name() if dtype == "bfloat16" else "", lambda rows: False)
    whole_packed = linear(isa, x, w, "float32").array  # bfloat16 would round differences away
    settings.set_batch_invariant(True)
    whole = linear(isa, x, w, "float32").array
    assert (whole != whole_packed).any() == packed(300)
    for invariant, count in itertools.product((False, True), (1, 3)):
        settings.set_batch_invariant(invariant)
        settings.set_num_threads(count)
        for rows in (1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 16, 17, 20, 21, 48, 49, 193):
            part = Tensor(x.array[11 : 11 + rows], dtype)
            expected = whole_packed if packed(rows) and not invariant else whole
            found = linear(isa, part, w, "float32").array
            np.testing.assert_array_equal(found, expected[11 : 11 + rows])


@pytest.mark.parametrize("dtype", DENSE)
def test_gate_up_swiglu(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    for rows, cols, inner in ((1, 33, 70), (3, 7, 64), (9, 130, 129), (60, 70, 33), (27, 9, 40)):
        x = tensor(rng.standard_normal((rows, inner)), dtype)
        gate = tensor(rng.standard_normal((cols, inner)), dtype)
        up = with_row_gap(tensor(rng.standard_normal((cols, inner)), dtype), 2)
        y, chain = empty((rows, cols), dtype), empty((rows, cols), dtype)
        isa.call("gate_up_swiglu", x, gate, up, y)
        products = Tensor(
            np.concatenate([linear(isa, x, gate).array, linear(isa, x, up).array], 1), dtype
        )
        isa.call("swiglu", products, -1, chain)
        np.testing.assert_array_equal(y.array, chain.array)  # the fused node equals the chain
        wide = products.wide()
        exact = reference.silu(wide[:, :cols]) * wide[:, cols:]
        assert (
            np.abs(y.wide() - exact) <= 4 * UNIT_ROUNDOFF[dtype] * np.abs(exact) + TINY[dtype]
        ).all()


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("repeat", [1, 8])
def test_lm_head(isa: Native, dtype: str, repeat: int, rng: np.random.Generator) -> None:
    hidden = tensor(rng.standard_normal((6, 90)), dtype)
    w = tensor(rng.standard_normal((37, 90)), dtype)
    rows = np.array([5, 0, 5] * repeat, np.int32)
    y = empty((len(rows), 37), "float32")
    isa.call("lm_head", hidden, Tensor(rows, "int32"), w, y)
    picked = Tensor(hidden.array[rows], dtype)
    check(picked, w, y)
    np.testing.assert_array_equal(y.array, linear(isa, picked, w, "float32").array)


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_general_matmul(
    isa: Native, dtype: str, transpose_a: bool, transpose_b: bool, rng: np.random.Generator
) -> None:
    left = tensor(rng.standard_normal((5, 37)), dtype)
    right = tensor(rng.standard_normal((11, 37)), dtype)
    a = Tensor(np.ascontiguousarray(left.array.T), dtype) if transpose_a else left
    b = right if transpose_b else Tensor(np.ascontiguousarray(right.array.T), dtype)
    y = empty((5, 11), dtype)
    isa.call("matmul", a, b, transpose_a, transpose_b, y)
    check(left, right, y)


def test_special_values(isa: Native) -> None:
    """Infinities and NaN reach the result; zero rows stay zero."""
    for dtype in DENSE:
        rows = [[np.inf, 1.0, 0.0], [np.nan, 1.0, 0.0], [0.0, 0.0, 0.0]]
        for repeat in (1, 10):
            x = tensor(rows * repeat, dtype)
            y = linear(isa, x, tensor([[1.0, 2.0, 3.0]], dtype)).wide().reshape(repeat, 3)
            assert (y[:, 0] == np.inf).all()
            assert np.isnan(y[:, 1]).all()
            assert (y[:, 2] == 0.0).all()


def test_empty(isa: Native) -> None:
    x, w = empty((0, 8), "float32"), tensor(np.ones((4, 8)), "float32")
    linear(isa, x, w)
