# SPDX-License-Identifier: Apache-2.0
"""What a worker's process looks like once MindSpore is started."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator

import mindspore as ms
import pytest
from mindspore.ops.auto_generate import gen_ops_prim

from vllm_mindspore.device.kernel_library import kernel_library, library_path
from vllm_mindspore.device.runtime import computing_device, int8_caches_allowed, start_runtime
from vllm_mindspore.device.soc import Device
from vllm_mindspore.quantization.ptq.calibration_layer import one_operator_at_a_time

RunPython = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def _threads(mindspore_runtime: None) -> Iterator[None]:
    """Gives the kernels their threads back."""
    count = kernel_library().num_threads()
    yield
    kernel_library().set_num_threads(count)


@pytest.mark.usefixtures("_threads")
def test_the_runtime_may_be_started_again_with_other_threads() -> None:
    for count in (2, 1):
        assert start_runtime(count) is kernel_library()
        assert kernel_library().num_threads() == count


@pytest.mark.usefixtures("mindspore_runtime")
def test_mindspore_compiles_graphs_and_loads_our_kernels() -> None:
    assert ms.get_context("mode") == ms.GRAPH_MODE
    assert ms.get_context("device_target") == "CPU"
    assert computing_device() is Device.CPU
    assert os.environ["MS_OP_PLUGIN_PATH"] == str(library_path())


@pytest.mark.usefixtures("mindspore_runtime")
def test_int8_caches_leave_pynative_as_it_was() -> None:
    with int8_caches_allowed():
        pass
    rows, angles = ms.ops.ones((2, 32), ms.float16), ms.ops.ones((2, 16), ms.float16)
    with one_operator_at_a_time():
        positions = ms.ops.zeros(2, ms.int32)
        rope = gen_ops_prim.ApplyRotaryPosEmb(2)
        assert rope(rows, rows, angles, angles, positions)[0].shape == (2, 32)


def test_the_first_operator_leaves_no_trace(run_python: RunPython) -> None:
    """No notice about numpy's version, and no SystemError for the operators that follow."""
    result = run_python(
        "from vllm_mindspore.device.runtime import start_runtime\n"
        "start_runtime(1)\n"
        "import mindspore as ms\n"
        "print('sum', float((ms.Tensor([1.0]) + 1).asnumpy()[0]))"
    )
    assert "sum 2.0" in result.stdout
    assert "NumPy" not in result.stdout + result.stderr
    assert "SystemError" not in result.stderr


def test_a_process_that_used_mindspore_cannot_become_a_worker(run_python: RunPython) -> None:
    result = run_python(
        "import mindspore as ms\n"
        "ms.runtime.dispatch_threads_num(2)\n"
        "from vllm_mindspore.device.runtime import start_runtime\n"
        "start_runtime(1)",
        check=False,
    )
    assert result.returncode == 1
    assert "create the LLM before the first MindSpore op" in result.stderr
