# SPDX-License-Identifier: Apache-2.0
"""The codes of normed rows equal those of a norm and a quantization, one after the other."""

from __future__ import annotations

import numpy as np
import pytest

from ops.tests.native import DENSE, Native, NativeError, Tensor, empty, tensor

DIVIDE, MULTIPLY, PER_TOKEN = range(3)
KINDS = (DIVIDE, MULTIPLY, PER_TOKEN)


def both_ways(
    isa: Native, rng: np.random.Generator, shape: tuple[int, int], dtype: str, kind: int, adds: bool
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Codes, token scales and sums: apart, and as one operation."""
    rows, cols = shape
    x, residual = (tensor(rng.standard_normal(shape), dtype) for _ in range(2))
    gamma = tensor(rng.standard_normal(cols), dtype)
    scale = tensor(rng.uniform(0.01, 0.1, cols), "float32")
    offset = None if kind == PER_TOKEN else tensor(rng.integers(-60, 60, cols), "float32")
    found = []
    for joined in (False, True):
        y, total = (empty(shape, dtype) for _ in range(2))
        codes = Tensor(np.zeros(shape, np.int8), "int8")
        scales = empty((rows,), "float32") if kind == PER_TOKEN else None
        how = (kind, scale, offset, codes, scales)
        if joined:
            added, summed = (residual, total) if adds else (None, None)
            isa.call("norm_codes", x, added, gamma, 1e-6, *how, summed)
        elif adds:
            isa.call("add_rms_norm", x, residual, gamma, 1e-6, y, None, total)
            isa.call("quantize", y, *how)
        else:
            isa.call("rms_norm", x, gamma, 1e-6, y, None)
            isa.call("quantize", y, *how)
        parts = [codes, *([scales] if scales is not None else []), *([total] if adds else [])]
        found.append([part.array for part in parts])
    return found[0], found[1]


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adds", [False, True])
def test_every_tail(
    isa: Native, dtype: str, kind: int, adds: bool, rng: np.random.Generator
) -> None:
    for cols in (*range(1, 70), 127, 1024):
        apart, joined = both_ways(isa, rng, (3, cols), dtype, kind, adds)
        assert all(np.array_equal(a, b) for a, b in zip(apart, joined, strict=True)), cols
    assert apart[0].any()


@pytest.mark.parametrize("kind", KINDS)
def test_many_rows_on_all_threads(isa: Native, kind: int, rng: np.random.Generator) -> None:
    apart, joined = both_ways(isa, rng, (257, 1000), "bfloat16", kind, adds=True)
    assert all(np.array_equal(a, b) for a, b in zip(apart, joined, strict=True))


def test_what_does_not_fit_is_named(library: Native) -> None:
    x, gamma = tensor(np.ones((2, 8)), "float32"), tensor(np.ones(4), "float32")
    codes, scales = Tensor(np.zeros((2, 8), np.int8), "int8"), empty((2,), "float32")
    with pytest.raises(NativeError, match=r"gamma has shape \[4\]; expected \[8\]"):
        library.call("norm_codes", x, None, gamma, 1e-6, PER_TOKEN, None, None, codes, scales, None)
