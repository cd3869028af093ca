# SPDX-License-Identifier: Apache-2.0
"""RmsNorm and AddRmsNorm against float64."""

from __future__ import annotations

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
    repeated_rows,
    tensor,
    with_row_gap,
)

EVERY_TAIL = range(1, 40)
EPSILON = 1e-5
# Relative error of rstd: sum, division, square root and two products in float32.
FLOAT_STEPS = 8


def check(y: Tensor, rstd: Tensor | None, x: np.ndarray, gamma: Tensor) -> None:
    exact, scale = reference.rms_norm(x, gamma.wide(), EPSILON)
    relative = UNIT_ROUNDOFF[y.dtype] + FLOAT_STEPS * UNIT_ROUNDOFF["float32"]
    assert (np.abs(y.wide() - exact) <= relative * np.abs(exact) + TINY[y.dtype]).all()
    if rstd is not None:
        np.testing.assert_allclose(rstd.wide(), scale, rtol=FLOAT_STEPS * UNIT_ROUNDOFF["float32"])


@pytest.mark.parametrize("dtype", DENSE)
def test_every_tail(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    for cols in (*EVERY_TAIL, 1024, 1031):
        x, gamma = (
            tensor(rng.standard_normal((3, cols)), dtype),
            tensor(rng.standard_normal(cols), dtype),
        )
        y, rstd = empty((3, cols), dtype), empty((3,), "float32")
        isa.call("rms_norm", x, gamma, EPSILON, y, rstd)
        check(y, rstd, x.wide(), gamma)


@pytest.mark.parametrize("dtype", DENSE)
def test_add_every_tail(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    for cols in (*EVERY_TAIL, 515):
        x, residual = (tensor(rng.standard_normal((2, cols)), dtype) for _ in range(2))
        gamma = tensor(rng.standard_normal(cols), dtype)
        y, total, rstd = empty((2, cols), dtype), empty((2, cols), dtype), empty((2,), "float32")
        isa.call("add_rms_norm", x, residual, gamma, EPSILON, y, rstd, total)
        rounded = tensor(x.wide() + residual.wide(), dtype)
        np.testing.assert_array_equal(total.array, rounded.array)
        check(y, rstd, rounded.wide(), gamma)


@pytest.mark.parametrize("dtype", DENSE)
def test_strides_and_misalignment(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    gamma = misaligned(tensor(rng.standard_normal(50), dtype), 7)
    gapped = with_row_gap(tensor(rng.standard_normal((4, 50)), dtype), 3)
    turned = Tensor(tensor(rng.standard_normal((50, 4)), dtype).array.T, dtype)
    for x in (gapped, turned, misaligned(tensor(rng.standard_normal((4, 50)), dtype), 3)):
        y = misaligned(empty((4, 50), dtype), 5)
        isa.call("rms_norm", x, gamma, EPSILON, y, None)
        check(y, None, x.wide(), gamma)


@pytest.mark.parametrize("dtype", DENSE)
def test_repeated_rows(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    gamma = tensor(rng.standard_normal(8), dtype)
    for x in repeated_rows(rng, dtype):
        y = empty((3, 4, 8), dtype)
        isa.call("rms_norm", x, gamma, EPSILON, y, None)
        flat = Tensor(y.array.reshape(12, 8), dtype)
        check(flat, None, x.wide().reshape(12, 8), gamma)


@pytest.mark.parametrize("dtype", DENSE)
def test_rows_do_not_depend_on_each_other(
    isa: Native, dtype: str, rng: np.random.Generator
) -> None:
    x, gamma = (
        tensor(rng.standard_normal((200, 300)), dtype),
        tensor(rng.standard_normal(300), dtype),
    )
    whole = empty((200, 300), dtype)
    isa.call("rms_norm", x, gamma, EPSILON, whole, None)
    one = empty((1, 300), dtype)
    for row in (0, 77, 199):
        isa.call("rms_norm", Tensor(x.array[row : row + 1], dtype), gamma, EPSILON, one, None)
        np.testing.assert_array_equal(one.array[0], whole.array[row])


def test_gamma_over_several_axes(isa: Native, rng: np.random.Generator) -> None:
    x, gamma = (
        tensor(rng.standard_normal((3, 4, 5)), "float32"),
        tensor(rng.standard_normal((4, 5)), "float32"),
    )
    y = empty((3, 4, 5), "float32")
    isa.call("rms_norm", x, gamma, EPSILON, y, None)
    flat = tensor(gamma.array.reshape(-1), "float32")
    check(Tensor(y.array.reshape(3, 20), "float32"), None, x.wide().reshape(3, 20), flat)
