# SPDX-License-Identifier: Apache-2.0
"""Compressed int8 weights (docs/sparse_quant_format.md) by the kernel library, on numpy arrays.

Free of MindSpore: the front end uses it, too. Large weights are shared between threads. The
reference is quantization/sparse_codec.py.
"""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np
import numpy.typing as npt

from vllm_mindspore.device.kernel_library import KernelLibraryError, kernel_library, library_path
from vllm_mindspore.device.tensor_view import TensorView, view_of

Int8s = npt.NDArray[np.int8]
_TILE_OUTPUTS, _TILE_INPUTS, _ENTRY = 128, 256, 8
_MOST = np.iinfo(np.int64).max


def index_bytes(outputs: int, inputs: int) -> int:
    """Of the index of a weight [outputs, inputs]."""
    return _ENTRY * -(-outputs // _TILE_OUTPUTS) * -(-inputs // _TILE_INPUTS)


def encode(weight: Int8s) -> tuple[Int8s, Int8s]:
    """Stream and index of int8 codes [N, K]."""
    weight = np.ascontiguousarray(weight, np.int8)
    index = np.empty(index_bytes(*weight.shape), np.int8)
    size = np.zeros(1, np.int64)
    _call("index", weight, index, size)
    stream = np.empty(int(size[0]), np.int8)
    _call("encode", weight, index, stream)
    return stream, index


def decode(stream: Int8s, index: Int8s, outputs: int, inputs: int) -> Int8s:
    """The codes [outputs, inputs].

    Raises:
        ValueError: the coding is broken; names the tile, what was expected and found.
    """
    validate(stream, index, outputs, inputs)
    weight = np.empty((outputs, inputs), np.int8)
    _call("decode", stream, index, weight)
    return weight


def validate(stream: Int8s, index: Int8s, outputs: int, inputs: int) -> None:
    """Checks every bit of a stream and its index.

    Raises:
        ValueError: the coding is broken; names the tile, what was expected and found.
    """
    if max(abs(outputs), abs(inputs)) > _MOST:
        raise ValueError(f"shape [{outputs}, {inputs}]: expected numbers of at most 64 bits")
    _call("validate", stream, index, outputs, inputs)


@cache
def _functions() -> ctypes.CDLL:
    return ctypes.CDLL(str(library_path()))


def _call(name: str, *arguments: npt.NDArray[np.signedinteger] | int) -> None:
    views = [view_of(given) if isinstance(given, np.ndarray) else given for given in arguments]
    pointers = [
        ctypes.byref(given) if isinstance(given, TensorView) else ctypes.c_int64(given)
        for given in views
    ]
    if getattr(_functions(), f"vmo_core_sparse_{name}")(*pointers) != 0:
        message = kernel_library().last_error()
        raise ValueError(message) if name == "validate" else KernelLibraryError(message)
