# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters against float64: tails, mixed slots, parts, and the rows without one."""

from __future__ import annotations

import numpy as np
import pytest

from ops.tests.native import DENSE, UNIT_ROUNDOFF, Native, NativeError, Tensor, empty, tensor


def operands(
    rng: np.random.Generator,
    dtype: str,
    tokens: int,
    inner: int,
    rank: int,
    outputs: tuple[int, ...],
    adapters: int = 3,
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    """y, x, slots, a, b of random values near 1."""
    y = tensor(rng.standard_normal((tokens, sum(outputs))), dtype)
    x = tensor(rng.standard_normal((tokens, inner)), dtype)
    slots = tensor(rng.integers(-1, adapters, tokens), "int32")
    parts = len(outputs)
    a = tensor(rng.standard_normal((adapters, parts * rank, inner)) / np.sqrt(inner), dtype)
    b = [tensor(rng.standard_normal((n, adapters, rank)) / np.sqrt(rank), dtype) for n in outputs]
    return y, x, slots, a, b


def run(library: Native, y: Tensor, x: Tensor, slots: Tensor, a: Tensor, b: list[Tensor]) -> Tensor:
    out = empty(y.array.shape, y.dtype)
    library.call("lora", y, x, slots, a, len(b), b, out)
    return out


def expected(y: Tensor, x: Tensor, slots: Tensor, a: Tensor, b: list[Tensor]) -> np.ndarray:
    """In float64, the inner product rounded as the kernel does."""
    result = y.wide().copy()
    rank = b[0].array.shape[2]
    for row, slot in enumerate(slots.array):
        if slot < 0:
            continue
        inner = tensor(a.wide()[slot] @ x.wide()[row], x.dtype).wide()
        delta = [p.wide()[:, slot] @ inner[i * rank : (i + 1) * rank] for i, p in enumerate(b)]
        result[row] += np.concatenate(delta)
    return result


def check(library: Native, *given: Tensor | list[Tensor]) -> Tensor:
    out = run(library, *given)
    exact = expected(*given)
    # One rounding of the sum, and an inner product that may round the other way (values near 1).
    allowed = 4 * UNIT_ROUNDOFF[out.dtype] * (np.abs(exact) + 8)
    assert (np.abs(out.wide() - exact) <= allowed).all()
    return out


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("outputs", [(24,), (33, 7), (64, 16, 16)])
def test_parts_and_mixed_slots(
    isa: Native, dtype: str, outputs: tuple[int, ...], rng: np.random.Generator
) -> None:
    for tokens in (1, 2, 5, 17, 64):
        check(isa, *operands(rng, dtype, tokens, 48, 8, outputs))


@pytest.mark.parametrize("dtype", DENSE)
def test_every_tail(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    for size in range(1, 40):
        check(isa, *operands(rng, dtype, 3, size, 1 + size % 9, (size, 1 + size % 5)))


def test_rows_without_adapter_keep_their_bits(library: Native, rng: np.random.Generator) -> None:
    y, x, slots, a, b = operands(rng, "bfloat16", 40, 16, 4, (20,))
    out = run(library, y, x, slots, a, b)
    without = slots.array < 0
    assert without.any()
    assert not without.all()
    np.testing.assert_array_equal(out.array[without], y.array[without])
    assert (out.array[~without] != y.array[~without]).any(axis=1).all()


def test_a_row_does_not_depend_on_its_neighbours(library: Native, rng: np.random.Generator) -> None:
    y, x, slots, a, b = operands(rng, "bfloat16", 33, 64, 8, (48, 16))
    together = run(library, y, x, slots, a, b)
    for row in range(33):
        one = [Tensor(t.array[row : row + 1], t.dtype) for t in (y, x, slots)]
        np.testing.assert_array_equal(run(library, *one, a, b).array[0], together.array[row])


def test_refusals(library: Native, rng: np.random.Generator) -> None:
    y, x, slots, a, b = operands(rng, "float32", 4, 8, 2, (6, 6))
    with pytest.raises(NativeError, match=r"slots\[2\] is 3; expected less than the 3"):
        run(library, y, x, tensor([0, 1, 3, 0], "int32"), a, b)
    with pytest.raises(NativeError, match=r"argument y has shape \[4, 12\]; expected \[4, 6\]"):
        library.call("lora", y, x, slots, a, 1, [tensor(np.zeros((6, 3, 4)), "float32")], y)
    with pytest.raises(NativeError, match="that 2 parts share"):
        run(library, y, x, slots, tensor(np.zeros((3, 5, 8)), "float32"), b)
    with pytest.raises(NativeError, match="expected 1 to 3"):
        library.call("lora", y, x, slots, a, 4, b, y)
