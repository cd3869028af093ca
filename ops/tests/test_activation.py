# SPDX-License-Identifier: Apache-2.0
"""SiLU and SwiGLU against float64 over the whole range of inputs."""

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

# exp to 3e-7 relative, a sum, a quotient, a product.
FLOAT_STEPS = 10
# Below this the clamped exponential makes silu(x) tiny and of the right sign, but not exact.
CLAMPED = 1e-33


def close(y: Tensor, exact: np.ndarray) -> np.ndarray:
    relative = UNIT_ROUNDOFF[y.dtype] + FLOAT_STEPS * UNIT_ROUNDOFF["float32"]
    return np.abs(y.wide() - exact) <= relative * np.abs(exact) + TINY[y.dtype] + CLAMPED


@pytest.mark.parametrize("dtype", DENSE)
def test_silu_over_the_range(isa: Native, dtype: str) -> None:
    largest = 65504.0 if dtype == "float16" else 3e38
    extremes = [0.0, -0.0, 1e-30, -1e-30, -1e4, 1e4, -largest, largest]
    values = np.concatenate([np.linspace(-120, 120, 2001), extremes])
    x = tensor(values, dtype)
    y = empty(x.array.shape, dtype)
    isa.call("silu", x, y)
    with np.errstate(over="ignore"):
        exact = reference.silu(x.wide())
    assert close(y, exact).all()


@pytest.mark.parametrize("dtype", DENSE)
def test_repeated_rows(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    for x in repeated_rows(rng, dtype):
        y = empty((3, 4, 8), dtype)
        isa.call("silu", x, y)
        assert close(y, reference.silu(x.wide())).all()


@pytest.mark.parametrize("dtype", DENSE)
def test_silu_keeps_nan_and_infinity(isa: Native, dtype: str) -> None:
    x = tensor([np.nan, np.inf, 3.0], dtype)
    y = empty((3,), dtype)
    isa.call("silu", x, y)
    assert np.isnan(y.wide()[0])
    assert y.wide()[1] == np.inf


@pytest.mark.parametrize("dtype", DENSE)
def test_swiglu_every_tail(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    for half in (*range(1, 40), 300):
        x = tensor(rng.standard_normal((3, 2 * half)) * 4, dtype)
        if half % 2:
            x = with_row_gap(misaligned(x, 2), 3)
        y = empty((3, half), dtype)
        isa.call("swiglu", x, -1, y)
        wide = x.wide()
        assert close(y, reference.silu(wide[:, :half]) * wide[:, half:]).all()


def test_swiglu_inner_axis(isa: Native, rng: np.random.Generator) -> None:
    x = tensor(rng.standard_normal((3, 4, 5)), "float32")
    y = empty((3, 2, 5), "float32")
    isa.call("swiglu", x, 1, y)
    gate, up = np.split(x.wide(), 2, 1)
    assert close(y, reference.silu(gate) * up).all()
