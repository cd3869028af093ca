# SPDX-License-Identifier: Apache-2.0
"""The library's control functions, through the loaded library itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import vllm_mindspore
from vllm_mindspore.device import kernel_library as module
from vllm_mindspore.device.kernel_library import (
    ISA_NAMES,
    KernelLibrary,
    KernelLibraryError,
    kernel_library,
    library_path,
)


@pytest.fixture
def library() -> Iterator[KernelLibrary]:
    """The library, left as it was found."""
    loaded = kernel_library()
    isa, threads = loaded.isa_name(), loaded.num_threads()
    yield loaded
    loaded.set_isa(isa)
    loaded.set_num_threads(threads)
    loaded.enable_stats(False)
    loaded.reset_stats()


def rms_norm() -> None:
    """One builtin operator of the library, [2, 64] fp32."""
    import mindspore

    x = mindspore.Tensor(np.ones((2, 64), np.float32))
    mindspore.ops.rms_norm(x, mindspore.Tensor(np.ones(64, np.float32)), 1e-6)[0].asnumpy()


def test_a_missing_library_gives_the_command_that_builds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LIBRARY_NAME", "nothing.so")
    with pytest.raises(KernelLibraryError, match=r"nothing\.so does not exist.*cmake --build"):
        library_path()


def test_library_and_package_have_one_version(library: KernelLibrary) -> None:
    assert library.version() == vllm_mindspore.__version__


def test_instruction_sets_are_known_by_name(library: KernelLibrary) -> None:
    assert library.isa_name() in ISA_NAMES
    assert library.isa_supported(library.isa_name())
    assert library.isa_supported("generic")
    assert not library.isa_supported("nothing")
    library.set_isa("generic")
    assert library.isa_name() == "generic"


def test_an_unknown_instruction_set_is_refused(library: KernelLibrary) -> None:
    before = library.isa_name()
    with pytest.raises(KernelLibraryError, match="nothing"):
        library.set_isa("nothing")
    assert library.isa_name() == before
    assert "nothing" in library.last_error()


def test_threads_can_be_set(library: KernelLibrary) -> None:
    for count in (2, 1):
        library.set_num_threads(count)
        assert library.num_threads() == count
    with pytest.raises(KernelLibraryError, match="0"):
        library.set_num_threads(0)


def test_builtin_primitives_are_registered(library: KernelLibrary) -> None:
    registered = library.registered_ops()
    assert {"RmsNorm", "PagedAttention", "ReshapeAndCache", "MatMul"} <= set(registered)
    assert len(registered) == len(set(registered))


@pytest.mark.usefixtures("mindspore_runtime")
def test_calls_and_seconds_are_counted_while_enabled(library: KernelLibrary) -> None:
    rms_norm()
    library.enable_stats(True)
    library.reset_stats()
    assert library.op_stats("RmsNorm").calls == 0
    rms_norm()
    rms_norm()
    stats = library.op_stats("RmsNorm")
    assert stats.calls == 2
    assert 0 < stats.seconds < 10
    with pytest.raises(KernelLibraryError, match="Nothing"):
        library.op_stats("Nothing")


@pytest.mark.usefixtures("mindspore_runtime")
def test_the_footprint_is_what_the_outputs_occupy(library: KernelLibrary) -> None:
    library.start_footprint()
    rms_norm()
    measured = library.stop_footprint()
    assert 2 * 64 * 4 <= measured <= 2 * 64 * 4 + 4096
    library.start_footprint()
    assert library.stop_footprint() == 0


@pytest.mark.usefixtures("mindspore_runtime")
def test_noop_kernels_compute_nothing(library: KernelLibrary) -> None:
    import mindspore

    x = mindspore.Tensor(np.full((2, 64), 3, np.float32))
    weight = mindspore.Tensor(np.full(64, 5, np.float32))
    library.set_noop(True)
    try:
        skipped = mindspore.ops.rms_norm(x, weight, 1e-6)[0].asnumpy().copy()
    finally:
        library.set_noop(False)
    computed = mindspore.ops.rms_norm(x, weight, 1e-6)[0].asnumpy()
    assert not np.allclose(skipped, 5)
    np.testing.assert_allclose(computed, 5, rtol=1e-5)


def test_the_machine_is_measured(library: KernelLibrary) -> None:
    assert library.read_bandwidth(1 << 22) > 1e8
    assert library.peak("float32") > 1e8
    with pytest.raises(ValueError, match="not in tuple"):
        library.peak("int8")
