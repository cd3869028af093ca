# SPDX-License-Identifier: Apache-2.0
"""The ranks of one engine on this machine, which share memory: what they exchange outside graphs.

Inside graphs the kernels do it themselves (ops/collectives/collectives.h). The other ranks are
found through `Exchange`, which is slow and general; everything later goes through shared memory.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Protocol

import numpy as np

from vllm_mindspore.device.kernel_library import KernelLibrary, KernelLibraryError
from vllm_mindspore.device.tensor_view import TensorView, view_of


class Exchange(Protocol):
    """How ranks tell each other where the shared memory is."""

    def all_gather(self, value: object) -> list[Any]:
        """What each rank gives, in the order of the ranks; every rank must call it."""


class RankGroup:
    """This process among the ranks of its engine. All ranks call the same methods in turn.

    An exchange with a rank that has ended or failed raises KernelLibraryError that names it.
    """

    def __init__(self, library: KernelLibrary, index: int, count: int) -> None:
        self.index, self.count = index, count
        self._library = library
        self._functions = ctypes.CDLL(str(library.path))  # the same one: it is loaded once
        _declare(self._functions)

    @classmethod
    def form(cls, library: KernelLibrary, index: int, count: int, exchange: Exchange) -> RankGroup:
        """Rank 0 makes the memory, the others map it; nothing with a name is left behind.

        Raises:
            KernelLibraryError: a rank cannot, on every rank.
        """
        group = cls(library, index, count)
        functions, problem, descriptor = group._functions, "", ctypes.c_int(-1)
        if count == 1:
            return group
        if index == 0:
            problem = group._problem(functions.vmo_group_create(count, ctypes.byref(descriptor)))
        pid, number, made = exchange.all_gather((os.getpid(), descriptor.value, problem))[0]
        if index > 0 and not made:
            problem = group._problem(functions.vmo_group_join(pid, number, index, count))
        problems = exchange.all_gather(problem)
        if descriptor.value >= 0:
            os.close(descriptor.value)
        if any(problems):
            group.leave()
            raise KernelLibraryError("; ".join(text for text in problems if text))
        return group

    def stop(self, reason: str) -> None:
        """Lets the others know that this rank has failed and will not answer any more."""
        self._functions.vmo_group_stop(reason.encode())

    def leave(self) -> None:
        """Ends the exchange: others that still wait for this rank get an error."""
        self._functions.vmo_group_leave()

    def set_patience(self, seconds: float) -> None:
        """How long a rank that lives may take to answer."""
        self._functions.vmo_group_set_patience(seconds)

    def broadcast(self, values: np.ndarray) -> None:
        """Gives the other ranks what rank 0 has in `values`, a gap-free array of the same size."""
        view = view_of(values.reshape(-1).view(np.uint8))
        self._check(self._functions.vmo_broadcast(ctypes.byref(view), 0))

    def gather_columns(self, part: np.ndarray, columns: int) -> np.ndarray | None:
        """On rank 0 the first `columns` of all ranks' `part` [rows, N] side by side, elsewhere
        None."""
        given = view_of(part)
        if self.index > 0:
            self._check(self._functions.vmo_gather_columns(ctypes.byref(given), None))
            return None
        found = np.empty((len(part), columns), part.dtype)
        self._check(
            self._functions.vmo_gather_columns(ctypes.byref(given), ctypes.byref(view_of(found)))
        )
        return found

    def all_reduce(self, values: np.ndarray) -> None:
        """Replaces float32 or float16 `values` by the sum over all ranks."""
        view = view_of(values)
        self._check(self._functions.vmo_all_reduce(ctypes.byref(view), ctypes.byref(view)))

    def all_gather(self, values: np.ndarray) -> np.ndarray:
        """The `values` [d0, ...] of all ranks one after the other."""
        found = np.empty((self.count * len(values), *values.shape[1:]), values.dtype)
        self._check(
            self._functions.vmo_all_gather(
                ctypes.byref(view_of(values)), ctypes.byref(view_of(found))
            )
        )
        return found

    def _problem(self, status: int) -> str:
        return self._library.last_error() if status else ""

    def _check(self, status: int) -> None:
        if status:
            raise KernelLibraryError(self._library.last_error())


def _declare(functions: ctypes.CDLL) -> None:
    number, view = ctypes.c_int, ctypes.POINTER(TensorView)
    signatures: dict[str, tuple[type | None, list[Any]]] = {
        "vmo_group_create": (number, [number, ctypes.POINTER(number)]),
        "vmo_group_join": (number, [number] * 4),
        "vmo_group_leave": (None, []),
        "vmo_group_stop": (None, [ctypes.c_char_p]),
        "vmo_group_set_patience": (None, [ctypes.c_double]),
        "vmo_all_reduce": (number, [view, view]),
        "vmo_all_gather": (number, [view, view]),
        "vmo_gather_columns": (number, [view, view]),
        "vmo_broadcast": (number, [view, number]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(functions, name)
        function.restype = result
        function.argtypes = arguments
