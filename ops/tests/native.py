# SPDX-License-Identifier: Apache-2.0
"""The library's C operations on numpy arrays, for tests: any strides, any alignment, bfloat16.

bfloat16 arrays are uint16 arrays of bit patterns, marked by the dtype name passed along.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vllm_mindspore.device.kernel_library import KernelLibrary, library_path

Array = npt.NDArray[np.generic]
DTYPE_CODES = {
    "float32": 0, "float16": 1, "bfloat16": 2, "float64": 3, "bool": 4, "int8": 5, "uint8": 6,
    "int16": 7, "uint16": 8, "int32": 9, "uint32": 10, "int64": 11, "uint64": 12,
    "complex64": 13, "complex128": 14,
}  # fmt: skip
DENSE = ("float32", "float16", "bfloat16")
# Unit roundoff of each dense type: half the distance between 1 and the next number.
UNIT_ROUNDOFF = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
# Smallest spacing near zero, for results that underflow.
TINY = {"float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}


class TensorView(ctypes.Structure):
    """vmo::TensorView."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("shape", ctypes.c_int64 * 8),
        ("strides", ctypes.c_int64 * 8),
    )


@dataclass(frozen=True)
class Tensor:
    """A numpy array with the library's name of its element type."""

    array: Array
    dtype: str

    def view(self) -> TensorView:
        """Description of the array's memory; the array must stay alive while it is used."""
        size = self.array.itemsize
        strides = [step // size for step in self.array.strides]
        pad = [0] * (8 - self.array.ndim)
        return TensorView(
            self.array.ctypes.data,
            DTYPE_CODES[self.dtype],
            self.array.ndim,
            (ctypes.c_int64 * 8)(*self.array.shape, *pad),
            (ctypes.c_int64 * 8)(*strides, *pad),
        )

    def wide(self) -> npt.NDArray[np.float64]:
        """The values as float64."""
        if self.dtype == "bfloat16":
            return from_bfloat16(self.array).astype(np.float64)
        return self.array.astype(np.float64)


def to_bfloat16(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint16]:
    """Bit patterns of float32 values rounded to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16
    nan = np.isnan(values)
    return np.where(nan, (bits >> 16) | 0x40, rounded).astype(np.uint16)


def from_bfloat16(bits: Array) -> npt.NDArray[np.float32]:
    """float32 values of bit patterns."""
    return (np.asarray(bits).astype(np.uint32) << 16).view(np.float32)


def tensor(values: npt.ArrayLike, dtype: str) -> Tensor:
    """Values rounded to a dense dtype (or converted to a numpy one) in fresh memory."""
    if dtype == "bfloat16":
        return Tensor(to_bfloat16(np.asarray(values, np.float32)), dtype)
    return Tensor(np.array(values, dtype=dtype, order="C"), dtype)


def empty(shape: Sequence[int], dtype: str) -> Tensor:
    """Output memory filled with a pattern that is a NaN in every dense type."""
    storage = np.dtype(np.uint16 if dtype == "bfloat16" else dtype)
    array = np.empty(tuple(shape), storage)
    array.reshape(-1).view(np.uint8)[...] = 0xFF
    return Tensor(array, dtype)


def misaligned(source: Tensor, offset: int) -> Tensor:
    """The same values at an address `offset` bytes past a 64-byte boundary, in a larger buffer."""
    raw = np.zeros(source.array.nbytes + 192, np.uint8)
    start = -raw.ctypes.data % 64 + offset
    array = raw[start : start + source.array.nbytes].view(source.array.dtype)
    array = array.reshape(source.array.shape)
    array[...] = source.array
    return Tensor(array, source.dtype)


def with_row_gap(source: Tensor, gap: int) -> Tensor:
    """The same matrix with `gap` unused elements (NaN patterns) after each row."""
    rows, cols = source.array.shape
    wide = empty((rows, cols + gap), source.dtype)
    wide.array[:, :cols] = source.array
    return Tensor(wide.array[:, :cols], source.dtype)


def repeated_rows(rng: np.random.Generator, dtype: str) -> list[Tensor]:
    """[3, 4, 8] with strides (8, 0, 1), (0, 8, 1) and (0, 0, 1)."""
    bases = [tensor(rng.standard_normal(s), dtype).array for s in ((3, 1, 8), (1, 4, 8), (1, 1, 8))]
    return [Tensor(np.broadcast_to(base, (3, 4, 8)), dtype) for base in bases]


class NativeError(RuntimeError):
    """An operation returned nonzero; the message is the library's."""


class Native:
    """Calls vmo_core_* functions; the first failing status becomes NativeError."""

    def __init__(self, path: Path) -> None:
        self.control = KernelLibrary(path)
        self.functions = ctypes.CDLL(str(path))

    def call(
        self, name: str, *arguments: Tensor | Sequence[Tensor | None] | int | float | None
    ) -> None:
        """Runs vmo_core_<name>; tensors become pointers to views, sequences arrays of views."""
        self.prepared(name, *arguments)()

    def prepared(
        self, name: str, *arguments: Tensor | Sequence[Tensor | None] | int | float | None
    ) -> Callable[[], None]:
        """The same call, to be made any number of times."""
        function = getattr(self.functions, f"vmo_core_{name}")
        converted = [_argument(value) for value in arguments]

        def call(_alive: object = arguments) -> None:
            if function(*converted) != 0:
                raise NativeError(self.control.last_error())

        return call


def _argument(value: Tensor | Sequence[Tensor | None] | int | float | None) -> object:
    if value is None:
        return ctypes.c_void_p()
    if isinstance(value, Tensor):
        return ctypes.byref(value.view())
    if isinstance(value, bool | int):
        return ctypes.c_int64(value)
    if isinstance(value, float):
        return ctypes.c_double(value)
    views = (TensorView() if item is None else item.view() for item in value)
    return (TensorView * len(value))(*views)


def native_path() -> Path:
    """The library under test: VMO_TEST_LIBRARY, else the installed one."""
    return Path(os.environ.get("VMO_TEST_LIBRARY") or library_path())
