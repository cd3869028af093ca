# SPDX-License-Identifier: Apache-2.0
"""How many kernel threads one rank gets."""

from __future__ import annotations

import os
from pathlib import Path

from vllm_mindspore import envs

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(cpu_max: Path = _CPU_MAX) -> int:
    """Cores this process may run on: its affinity mask, within its control group's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text().split()
    except (OSError, ValueError):
        return cores
    if quota == "max":
        return cores
    return max(1, min(cores, int(quota) // int(period)))


def threads_per_rank(num_ranks: int) -> int:
    """Usable cores divided by the ranks of this machine, at least 1; VLLM_MS_NUM_THREADS wins."""
    chosen = envs.NUM_THREADS.get()
    return chosen if chosen is not None else max(1, usable_cores() // num_ranks)
