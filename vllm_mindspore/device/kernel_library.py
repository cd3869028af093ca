# SPDX-License-Identifier: Apache-2.0
"""ctypes binding of the kernel library's control functions (ops/include/vmo/api.h).

Computation reaches the library through MindSpore, never through this module: as an op plugin
(MS_OP_PLUGIN_PATH) and as ops.Custom functions, both given `library_path()`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LIBRARY_NAME = "libvllm_mindspore_ops.so"
BUILD_COMMAND = (
    "cmake -S ops -B build/ops -G Ninja -DCMAKE_BUILD_TYPE=Release && cmake --build build/ops"
)
# Instruction sets in rising order; VLLM_MS_CPU_ISA takes one of these names.
ISA_NAMES = ("generic", "avx2", "avx512", "avx512_bf16", "amx")


class KernelLibraryError(RuntimeError):
    """The library is missing, or one of its functions reported a failure."""


@dataclass(frozen=True)
class OpStats:
    """What one MindSpore entry point of the library has cost since the last reset."""

    calls: int
    seconds: float


def library_path() -> Path:
    """Absolute path of the built library.

    Raises KernelLibraryError with the command that builds it when the file does not exist.
    """
    path = Path(__file__).resolve().parent.parent / "lib" / LIBRARY_NAME
    if not path.is_file():
        raise KernelLibraryError(
            f"The kernel library {path} does not exist. Build it in the project's root folder "
            f"with: {BUILD_COMMAND}"
        )
    return path


class KernelLibrary:
    """The loaded library: instruction set, threads, counters and the last error.

    The library reads VLLM_MS_CPU_ISA and VLLM_MS_NUM_THREADS by itself, at its first use.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._functions = ctypes.CDLL(str(path))
        _declare(self._functions)

    def version(self) -> str:
        """Version the library was built as."""
        return _text(self._functions.vmo_version())

    def isa_name(self) -> str:
        """Instruction set in force, one of ISA_NAMES.

        Raises KernelLibraryError when VLLM_MS_CPU_ISA names an unknown or unavailable one.
        """
        name = _text(self._functions.vmo_isa_name())
        self._check(0 if name else 1)
        return name

    def isa_supported(self, name: str) -> bool:
        """Whether this CPU, system and build can run the instruction set."""
        return bool(self._functions.vmo_isa_supported(name.encode()))

    def set_isa(self, name: str) -> None:
        """Forces an instruction set; raises KernelLibraryError if it cannot run here."""
        self._check(self._functions.vmo_set_isa(name.encode()))

    def num_threads(self) -> int:
        """Threads that compute, the calling one included."""
        return int(self._functions.vmo_num_threads())

    def set_num_threads(self, count: int) -> None:
        """Changes the thread count; must not run while a kernel does."""
        self._check(self._functions.vmo_set_num_threads(count))

    def last_error(self) -> str:
        """Message of the last failure of any thread, "" if there was none."""
        return _text(self._functions.vmo_last_error())

    def set_batch_invariant(self, enabled: bool) -> None:
        """Whether the bits of a row must not depend on how many rows are computed with it. Off,
        bfloat16 products of many rows take a quicker way that adds in another order."""
        self._functions.vmo_set_batch_invariant(int(enabled))

    def set_noop(self, enabled: bool) -> None:
        """Makes every MindSpore entry point return at once: what remains is the framework."""
        self._functions.vmo_set_noop(int(enabled))

    def start_footprint(self) -> None:
        """Begins to record where the outputs of MindSpore entry points lie."""
        self._functions.vmo_start_footprint()

    def stop_footprint(self) -> int:
        """Bytes that the recorded outputs occupy, memory that was reused counted once."""
        return int(self._functions.vmo_stop_footprint())

    def footprint_of(self, step: Callable[[], None]) -> int:
        """Bytes that the outputs of a step's MindSpore entry points occupy. Nothing is computed:
        MindSpore plans and places every output all the same."""
        self.set_noop(True)
        self.start_footprint()
        try:
            step()
        finally:
            occupied = self.stop_footprint()
            self.set_noop(False)
        return occupied

    def enable_stats(self, enabled: bool) -> None:
        """Switches the per-operation counters."""
        self._functions.vmo_enable_stats(int(enabled))

    def reset_stats(self) -> None:
        """Sets all counters to zero."""
        self._functions.vmo_reset_stats()

    def op_stats(self, name: str) -> OpStats:
        """Counters of one entry point, e.g. "RmsNorm" or "vmo_linear_3".

        Raises KernelLibraryError for a name the library does not have.
        """
        calls, nanoseconds = ctypes.c_int64(), ctypes.c_int64()
        status = self._functions.vmo_op_stats(
            name.encode(), ctypes.byref(calls), ctypes.byref(nanoseconds)
        )
        self._check(status)
        return OpStats(calls.value, nanoseconds.value * 1e-9)

    def registered_ops(self) -> tuple[str, ...]:
        """Builtin MindSpore primitives the library replaces when loaded as an op plugin."""
        names = self._functions.GetAllRegisteredOps()
        return tuple(_text(names[i]) for i in range(self._functions.GetRegisteredOpCount()))

    def read_bandwidth(self, num_bytes: int) -> float:
        """Measured bytes/s of all threads reading that much memory once."""
        return float(self._functions.vmo_measure_read_bandwidth(num_bytes))

    def peak(self, dtype: str) -> float:
        """Measured FLOP/s of all threads in registers for float32, float16 or bfloat16.

        Vector units only: matrix tiles are not part of the measurement.
        """
        index = ("float32", "float16", "bfloat16").index(dtype)
        return float(self._functions.vmo_measure_peak(index))

    def _check(self, status: int) -> None:
        if status != 0:
            raise KernelLibraryError(self.last_error())


@cache
def kernel_library() -> KernelLibrary:
    """The library of this installation, loaded once per process."""
    return KernelLibrary(library_path())


def _text(value: bytes | None) -> str:
    """The library cuts long messages, maybe inside of a character."""
    return (value or b"").decode(errors="replace")


def _declare(functions: ctypes.CDLL) -> None:
    text, pointer = ctypes.c_char_p, ctypes.POINTER
    signatures: dict[str, tuple[type | None, list[type]]] = {
        "vmo_version": (text, []),
        "vmo_isa_name": (text, []),
        "vmo_isa_supported": (ctypes.c_int, [text]),
        "vmo_set_isa": (ctypes.c_int, [text]),
        "vmo_num_threads": (ctypes.c_int, []),
        "vmo_set_num_threads": (ctypes.c_int, [ctypes.c_int]),
        "vmo_last_error": (text, []),
        "vmo_set_batch_invariant": (None, [ctypes.c_int]),
        "vmo_set_noop": (None, [ctypes.c_int]),
        "vmo_start_footprint": (None, []),
        "vmo_stop_footprint": (ctypes.c_int64, []),
        "vmo_enable_stats": (None, [ctypes.c_int]),
        "vmo_reset_stats": (None, []),
        "vmo_op_stats": (
            ctypes.c_int,
            [text, pointer(ctypes.c_int64), pointer(ctypes.c_int64)],
        ),
        "GetRegisteredOpCount": (ctypes.c_int, []),
        "GetAllRegisteredOps": (pointer(text), []),
        "vmo_measure_read_bandwidth": (ctypes.c_double, [ctypes.c_int64]),
        "vmo_measure_peak": (ctypes.c_double, [ctypes.c_int]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(functions, name)
        function.restype = result
        function.argtypes = arguments
