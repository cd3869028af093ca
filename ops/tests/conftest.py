# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the kernel tests: the library, the instruction sets, a primed MindSpore."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

from ops.tests.native import Native, native_path
from vllm_mindspore.device.kernel_library import ISA_NAMES, KernelLibrary


@pytest.fixture(scope="session")
def library() -> Native:
    """The library under test."""
    return Native(native_path())


@pytest.fixture(params=ISA_NAMES)
def isa(request: pytest.FixtureRequest, library: Native) -> Iterator[Native]:
    """The library forced to one instruction set; skipped where this machine lacks it."""
    before = library.control.isa_name()
    if not library.control.isa_supported(request.param):
        pytest.skip(f"this CPU or build has no {request.param}")
    library.control.set_isa(request.param)
    yield library
    library.control.set_isa(before)


@pytest.fixture
def settings(isa: Native) -> Iterator[KernelLibrary]:
    """The library's switches, set back afterwards."""
    threads = isa.control.num_threads()
    yield isa.control
    isa.control.set_num_threads(threads)
    isa.control.set_batch_invariant(False)


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded random numbers."""
    return np.random.default_rng(20240607)


def _prime_numpy() -> None:
    """MindSpore 2.10 is built against numpy 1: its first scalar argument in a process raises
    SystemError once, and prints a page of warnings unless the look-up fails quietly."""
    import mindspore
    import numpy.core._multiarray_umath as umath

    original = umath.__getattr__

    def quiet(name: str) -> object:
        if name in ("_ARRAY_API", "_UFUNC_API"):
            raise ImportError(name)
        return original(name)

    umath.__getattr__ = quiet
    try:
        mindspore.Tensor(np.ones(3, np.float32)) + 1
    except SystemError:
        pass
    finally:
        umath.__getattr__ = original


@pytest.fixture(scope="session")
def mindspore_cpu() -> None:
    """MindSpore on CPU with the library as op plugin; all users share one process."""
    os.environ["MS_OP_PLUGIN_PATH"] = str(native_path())
    import mindspore

    mindspore.set_device("CPU")
    _prime_numpy()
    mindspore.runtime.launch_blocking()
