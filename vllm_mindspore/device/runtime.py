# SPDX-License-Identifier: Apache-2.0
"""Starts MindSpore in a worker process. Nothing here may run in a front-end process: a fork
after the first MindSpore operator hangs the child."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Tensor
from mindspore._c_expression import MSContext
from vllm.logger import init_logger

from vllm_mindspore import envs
from vllm_mindspore.device import soc
from vllm_mindspore.device.kernel_library import KernelLibrary, kernel_library, library_path
from vllm_mindspore.process_start import require_idle_mindspore

logger = init_logger("vllm.vllm_mindspore.device")

_NPU = "Ascend"  # as MindSpore calls its device target


def start_runtime(num_threads: int) -> KernelLibrary:
    """Points MindSpore at our kernels, sets its threads and runs its first operator.

    `num_threads` is what our kernels use; MindSpore itself dispatches from one thread, since
    more of them spin against the kernels. Raises RuntimeError when the library is unusable.
    """
    envs.set_op_plugin(library_path())
    library = kernel_library()
    library.set_num_threads(num_threads)
    _choose_device("CPU")
    _begin()
    logger.info(
        "MindSpore %s on CPU: kernels %s, %d threads",
        ms.__version__,
        library.isa_name(),
        num_threads,
    )
    return library


def start_npu(device_id: int, num_threads: int, join: Callable[[], None]) -> KernelLibrary:
    """Points MindSpore at an NPU and runs its first operator there.

    `join` lets MindSpore find the other ranks, which it must before its first tensor. Our library
    is for what the host does, in so many threads. Raises RuntimeError when there is no NPU.
    """
    library = kernel_library()
    library.set_num_threads(num_threads)
    _choose_device(_NPU, device_id)
    join()
    _begin()
    ms.mint.zeros(1).asnumpy()  # it is there when this is
    logger.info("MindSpore %s on %s, %d", ms.__version__, computing_device().value, device_id)
    return library


@cache
def _choose_device(target: str, device_id: int | None = None) -> None:
    """Once per process: MindSpore refuses to set its dispatch threads again."""
    require_idle_mindspore()
    try:
        ms.set_device(target, device_id)
        ms.runtime.dispatch_threads_num(1)
    except RuntimeError as error:
        if target == _NPU:
            raise RuntimeError(
                f"VLLM_MS_DEVICE=ascend: MindSpore cannot use NPU {device_id}. Install CANN and "
                "source its set_env.sh in this shell, check ASCEND_RT_VISIBLE_DEVICES, or unset "
                "the variable to compute on the CPU. MindSpore says: "
                f"{str(error).splitlines()[0]}"
            ) from error
        raise RuntimeError(
            f"MindSpore was already set up in this process by other code ({error}). Create the LLM "
            "first, or put the whole program under `if __name__ == '__main__':`"
        ) from error


@cache
def _begin() -> None:
    ms.set_context(mode=ms.GRAPH_MODE, jit_level="O0")
    _prime_numpy_interface()


def computing_device() -> soc.Device:
    """What graphs of this process run on, whatever else the machine has.

    Raises:
        ValueError: an NPU that nothing here knows.
    """
    if ms.get_context("device_target") == "CPU":
        return soc.Device.CPU
    return soc.of_soc(MSContext.get_instance().get_ascend_soc_version())


@contextlib.contextmanager
def int8_caches_allowed() -> Iterator[None]:
    """MindSpore's own inference takes int8 caches in PagedAttention only with the option
    `infer_boost`, which users of an NPU have on. While it is on, PyNative looks for kernels that
    no CPU has."""
    _set_infer_boost("on")
    try:
        yield
    finally:
        _set_infer_boost("off")


def _set_infer_boost(value: str) -> None:
    ms.set_context(jit_config={"jit_level": "O0", "infer_boost": value})


def _prime_numpy_interface() -> None:
    """The MindSpore wheel is built against numpy 1: under numpy 2 its first use of a Python
    scalar prints a long notice and raises SystemError, once per process. Take it here."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemError):
        Tensor(np.ones(1, np.float32)) + 1
