# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding against float64: halves and pairs, partial widths, both angle types."""

from __future__ import annotations

import numpy as np
import pytest

from ops.tests import reference
from ops.tests.native import (
    DENSE,
    UNIT_ROUNDOFF,
    Native,
    Tensor,
    empty,
    misaligned,
    tensor,
    with_row_gap,
)

# Two float32 products and a sum, before the rounding of the result.
FLOAT_STEPS = 4


def check(y: Tensor, x: Tensor, cos: Tensor, sin: Tensor, head_dim: int, interleaved: bool) -> None:
    exact = reference.rotary(x.wide(), cos.wide(), sin.wide(), head_dim, interleaved)
    absolute = FLOAT_STEPS * UNIT_ROUNDOFF["float32"] * 2 * np.abs(x.wide()).max()
    assert (np.abs(y.wide() - exact) <= UNIT_ROUNDOFF[y.dtype] * np.abs(exact) + absolute).all()


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("interleaved", [False, True])
def test_every_width(isa: Native, dtype: str, interleaved: bool, rng: np.random.Generator) -> None:
    """Even rotary widths up to 70 in heads that are 0, 1 or 6 elements wider."""
    for width in range(2, 72, 2):
        head_dim = width + (0, 1, 6)[width // 2 % 3]
        x = tensor(rng.standard_normal((3, 2 * head_dim)), dtype)
        wide_cos, wide_sin = reference.angles(
            np.array([0, 5, 1000]), width, interleaved=interleaved
        )
        for angle in {"float32", dtype}:
            cos, sin = tensor(wide_cos, angle), tensor(wide_sin, angle)
            y = empty(x.array.shape, dtype)
            isa.call("rotary", x, cos, sin, head_dim, interleaved, y)
            check(y, x, cos, sin, head_dim, interleaved)


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("interleaved", [False, True])
def test_strides_and_in_place(
    isa: Native, dtype: str, interleaved: bool, rng: np.random.Generator
) -> None:
    cos, sin = (
        with_row_gap(misaligned(tensor(v, "float32"), 2), 3)
        for v in reference.angles(np.arange(5), 24, interleaved=interleaved)
    )
    x = with_row_gap(misaligned(tensor(rng.standard_normal((5, 64)), dtype), 2), 7)
    y = empty((5, 64), dtype)
    isa.call("rotary", x, cos, sin, 32, interleaved, y)
    check(y, x, cos, sin, 32, interleaved)
    same = Tensor(x.array.copy(), dtype)
    isa.call("rotary", same, cos, sin, 32, interleaved, same)
    np.testing.assert_array_equal(same.array, y.array)
