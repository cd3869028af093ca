# SPDX-License-Identifier: Apache-2.0
"""MindSpore's entry points called directly, with arguments they must refuse."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import pytest

from ops.tests.native import Array, Native


@dataclass(frozen=True)
class Argument:
    """One kernel argument: memory, element type and shape as MindSpore names them."""

    array: Array | None
    dtype: str
    rank: int | None = None

    def ndim(self) -> int:
        if self.rank is not None:
            return self.rank
        return 0 if self.array is None else self.array.ndim


NONE = Argument(None, "")


def of(array: Array) -> Argument:
    return Argument(array, array.dtype.name)


def f32(*shape: int) -> Argument:
    return of(np.ones(shape, np.float32))


def scalar(value: float, dtype: str) -> Argument:
    return of(np.array(value, dtype))


def run(library: Native, name: str, arguments: list[Argument]) -> str:
    """Error message of one kernel call, "" when it succeeds."""
    count = len(arguments)
    shapes = [(ctypes.c_int64 * 8)(*(() if a.array is None else a.array.shape)) for a in arguments]
    status = getattr(library.functions, name)(
        count,
        (ctypes.c_void_p * count)(
            *(None if a.array is None else a.array.ctypes.data for a in arguments)
        ),
        (ctypes.c_int * count)(*(a.ndim() for a in arguments)),
        (ctypes.c_void_p * count)(*(ctypes.addressof(shape) for shape in shapes)),
        (ctypes.c_char_p * count)(*(a.dtype.encode() for a in arguments)),
        None,
        None,
    )
    return library.control.last_error() if status != 0 else ""


@pytest.mark.parametrize("rank", [-1, -1000, 9, 1000])
def test_rank(library: Native, rank: int) -> None:
    bad = Argument(np.ones(4, np.float32), "float32", rank)
    for arguments in ([bad, f32(4)], [f32(4), bad]):
        message = run(library, "SiLU", arguments)
        assert f"has {rank} dimensions; expected 0 to 8" in message
    assert run(library, "SiLU", [f32(4), f32(4)]) == ""


@pytest.mark.parametrize("dtype", ["int32", "int64", "bool"])
def test_integer_scalars(library: Native, dtype: str) -> None:
    """dim = 1 of a [2, 4] tensor."""
    assert run(library, "Swiglu", [f32(2, 4), scalar(1, dtype), f32(2, 2)]) == ""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [1.0, np.nan, 1e300])
def test_floats_are_no_integers(library: Native, dtype: str, value: float) -> None:
    with np.errstate(over="ignore"):
        dim = scalar(value, dtype)
    message = run(library, "Swiglu", [f32(2, 4), dim, f32(2, 2)])
    assert message == f'Swiglu: argument dim has type "{dtype}"; expected an integer'


def paged_arguments(quant_mode: int, mask_mode: int) -> list[Argument]:
    ones = of(np.ones(1, np.int32))
    tables = of(np.zeros((1, 1), np.int32))
    tensors = [f32(1, 8), f32(2, 16, 1, 8), f32(2, 16, 1, 8), tables, ones]
    modes = [scalar(v, "int64") for v in (quant_mode, mask_mode, 0)]
    numbers = [scalar(1, "int64"), scalar(0.5, "float32"), scalar(1, "int64"), *modes]
    return [*tensors, NONE, NONE, NONE, ones, NONE, *numbers, f32(1, 8)]


def test_paged_attention_modes(library: Native) -> None:
    assert run(library, "PagedAttention", paged_arguments(0, 0)) == ""
    message = run(library, "PagedAttention", paged_arguments(1, 0))
    assert "kv_cache_quant_mode is 1; expected 0 (DEFAULT)" in message
    message = run(library, "PagedAttention", paged_arguments(0, 1))
    assert "mask_mode is 1; expected 0 (MASK_DEFAULT)" in message
