# SPDX-License-Identifier: Apache-2.0
"""What a worker computes on. No machine of ours has an NPU: how one is refused is all that runs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest

from vllm_mindspore.device import compute_device, memory
from vllm_mindspore.device.compute_device import Cpu, Npu
from vllm_mindspore.device.kernel_library import kernel_library

RunPython = Callable[..., subprocess.CompletedProcess[str]]


class Nobody:
    """The exchange of a single rank."""

    def all_gather(self, value: object) -> list[object]:
        """What it gives."""
        return [value]


@pytest.mark.usefixtures("mindspore_runtime")
def test_a_cpu_is_measured_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 12345)
    cpu = Cpu(num_ranks=2)
    monkeypatch.setattr(memory, "available_memory", lambda: 1)
    assert cpu.free_memory() == 12345
    assert cpu.num_sharing == 2


@pytest.mark.usefixtures("mindspore_runtime")
def test_a_step_on_a_cpu_takes_what_its_outputs_occupy() -> None:
    cpu = Cpu(num_ranks=1)
    threads = kernel_library().num_threads()
    assert cpu.start(0, 1, Nobody()) is kernel_library()
    x, gamma = ms.Tensor(np.ones((64, 64), np.float32)), ms.Tensor(np.ones(64, np.float32))
    taken = cpu.peak_of(lambda: ms.ops.rms_norm(x, gamma, 1e-6)[0].asnumpy())
    kernel_library().set_num_threads(threads)
    assert 64 * 64 * 4 <= taken <= 64 * 64 * 4 + 8192


class Allocator:
    """MindSpore's allocator on an NPU, as its documentation has it: no CPU build counts."""

    def __init__(self) -> None:
        self.current = self.peak = 100

    def take(self, kept: int, passing: int) -> None:
        """Memory that a step takes for ever, and for itself."""
        self.current += kept
        self.peak = max(self.peak, self.current + passing)

    def synchronize(self) -> None:
        """Nothing is pending."""

    def memory_allocated(self) -> int:
        """Now."""
        return self.current

    def max_memory_allocated(self) -> int:
        """Since the last reset."""
        return self.peak

    def reset_peak_memory_stats(self) -> None:
        """From now on."""
        self.peak = self.current


def test_weights_that_the_first_step_takes_to_an_npu_are_not_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allocator, weights = Allocator(), [5000]
    monkeypatch.setattr(ms, "runtime", allocator)
    taken = Npu(0, 1).peak_of(lambda: allocator.take(weights.pop() if weights else 0, 70))
    assert taken == 70


def test_an_npu_without_free_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute_device, "start_npu", lambda *rest: kernel_library())
    monkeypatch.setattr(ms.hal, "get_device_properties", lambda _: SimpleNamespace(free_memory=0))
    with pytest.raises(RuntimeError, match="no free memory of NPU 3: another program has it"):
        Npu(3, 1).start(0, 1, Nobody())


def test_no_npu_is_one_line_that_says_what_to_do(run_python: RunPython) -> None:
    result = run_python(
        "from vllm_mindspore.device.compute_device import Npu\n"
        "try:\n"
        "    Npu(0, 1).start(0, 1, None)\n"
        "except RuntimeError as error:\n"
        "    print('refused:', error)",
    )
    (line,) = [text for text in result.stdout.splitlines() if text.startswith("refused:")]
    assert "VLLM_MS_DEVICE=ascend: MindSpore cannot use NPU 0. Install CANN" in line
    assert "unset the variable to compute on the CPU" in line
    assert "Unsupported device target Ascend" in line
