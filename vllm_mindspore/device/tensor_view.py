# SPDX-License-Identifier: Apache-2.0
"""numpy arrays as the kernel library takes them: vmo::TensorView of include/vmo/tensor_view.h."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

_MAX_RANK = 8
# vmo::DType by numpy's.
_DTYPES = {
    np.dtype(np.float32): 0,
    np.dtype(np.float16): 1,
    np.dtype(np.int8): 5,
    np.dtype(np.uint8): 6,
    np.dtype(np.int64): 11,
}


class TensorView(ctypes.Structure):
    """Where an array lies, with strides in elements."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("shape", ctypes.c_int64 * _MAX_RANK),
        ("strides", ctypes.c_int64 * _MAX_RANK),
    )


def view_of(array: npt.NDArray[Any]) -> TensorView:
    """The array must stay alive while the view is used.

    Raises:
        TypeError: a dtype that is not exchanged this way.
    """
    if array.dtype not in _DTYPES:
        raise TypeError(f"expected one of {', '.join(map(str, _DTYPES))}; found {array.dtype}")
    padding = [0] * (_MAX_RANK - array.ndim)
    steps = [step // array.itemsize for step in array.strides]
    return TensorView(
        array.ctypes.data,
        _DTYPES[array.dtype],
        array.ndim,
        (ctypes.c_int64 * _MAX_RANK)(*array.shape, *padding),
        (ctypes.c_int64 * _MAX_RANK)(*steps, *padding),
    )
