# SPDX-License-Identifier: Apache-2.0
"""What the graphs of one rank run on, as its worker sees it: how it starts, and its memory.

What `Npu` asks of MindSpore exists on NPUs alone, and has not run on hardware.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import mindspore as ms

from vllm_mindspore.device import memory
from vllm_mindspore.device.cluster import Cluster
from vllm_mindspore.device.kernel_library import KernelLibrary
from vllm_mindspore.device.rank_group import Exchange
from vllm_mindspore.device.runtime import start_npu, start_runtime
from vllm_mindspore.device.threads import threads_per_rank


class ComputeDevice(Protocol):
    """Sizes are in bytes."""

    num_sharing: int
    """Ranks that have its memory together."""
    holds_caches: bool
    """Whether graphs keep the key-value caches in memory that only they see."""

    def start(self, index: int, count: int, exchange: Exchange) -> KernelLibrary:
        """Sets MindSpore up in rank `index` of `count`; all of them must call it."""

    def free_memory(self) -> int:
        """What the ranks may use of it, weights included, as it was before they took any."""

    def peak_of(self, step: Callable[[], None]) -> int:
        """What `step`, which runs graphs, takes at its peak."""


class Cpu:
    """Cores and main memory of this machine, with our kernels."""

    holds_caches = False

    def __init__(self, num_ranks: int) -> None:
        """num_ranks: those of all engines on this machine."""
        self.num_sharing = num_ranks
        self._free = memory.available_memory()

    def start(self, index: int, count: int, exchange: Exchange) -> KernelLibrary:
        """The ranks need nothing of MindSpore to find each other."""
        self._library = start_runtime(threads_per_rank(self.num_sharing))
        return self._library

    def free_memory(self) -> int:
        """Main memory that was available when this was made."""
        return self._free

    def peak_of(self, step: Callable[[], None]) -> int:
        """What the outputs of its graphs occupy; nothing is computed."""
        return self._library.footprint_of(step)


class Npu:
    """One NPU of this rank's own."""

    num_sharing = 1
    holds_caches = True

    def __init__(self, device_id: int, num_ranks: int) -> None:
        """device_id: counted among those of ASCEND_RT_VISIBLE_DEVICES, if that is set. num_ranks:
        those of all engines on this machine, which share its cores."""
        self._device_id, self._num_ranks = device_id, num_ranks

    def start(self, index: int, count: int, exchange: Exchange) -> KernelLibrary:
        """Graphs of several ranks exchange through HCCL, the hosts of NPUs as those of CPUs."""

        def join() -> None:
            if count > 1:
                self._cluster = Cluster.form(index, count, exchange)

        library = start_npu(self._device_id, threads_per_rank(self._num_ranks), join)
        self._free = int(ms.hal.get_device_properties(self._device_id).free_memory)
        if self._free == 0:
            raise RuntimeError(
                f"MindSpore reports no free memory of NPU {self._device_id}: another program has "
                "it; choose others with ASCEND_RT_VISIBLE_DEVICES"
            )
        return library

    def free_memory(self) -> int:
        """Memory of the NPU that was free behind its start."""
        return self._free

    def peak_of(self, step: Callable[[], None]) -> int:
        """What it allocates when it is computed again: the first time takes the weights, too, to
        the NPU."""
        step()
        ms.runtime.synchronize()
        before = ms.runtime.memory_allocated()
        ms.runtime.reset_peak_memory_stats()
        step()
        ms.runtime.synchronize()
        return int(ms.runtime.max_memory_allocated() - before)
