# SPDX-License-Identifier: Apache-2.0
"""The thread pool: exact joins, tiny jobs, size changes, forks, idleness, concurrent callers."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ops.tests.native import Native, Tensor, empty, native_path, tensor

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _restore_threads(library: Native) -> Iterator[None]:
    threads = library.control.num_threads()
    yield
    library.control.set_num_threads(threads)


def run_pool(library: Native, tasks: int, work: int = 0) -> int:
    """Sum of task numbers (from 1) that the pool has run."""
    total = ctypes.c_int64()
    library.functions.vmo_test_pool(
        ctypes.c_int64(tasks), ctypes.c_int64(work), ctypes.byref(total)
    )
    return total.value


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_every_task_runs_once(library: Native, threads: int) -> None:
    library.control.set_num_threads(threads)
    for tasks in (*range(20), 1000):
        assert run_pool(library, tasks) == tasks * (tasks + 1) // 2


def test_many_tiny_jobs(library: Native) -> None:
    """Back-to-back jobs: a worker that wakes late must not run a finished one."""
    library.control.set_num_threads(4)
    for i in range(20_000):
        tasks = 2 + i % 5
        assert run_pool(library, tasks) == tasks * (tasks + 1) // 2


def test_jobs_after_pauses(library: Native) -> None:
    """Workers asleep on the futex are woken."""
    library.control.set_num_threads(3)
    for _ in range(50):
        time.sleep(0.001)
        assert run_pool(library, 16, 1000) == 136


def test_size_changes_between_jobs(library: Native) -> None:
    for i in range(60):
        library.control.set_num_threads(1 + i % 5)
        assert library.control.num_threads() == 1 + i % 5
        assert run_pool(library, 50, 100) == 1275


def test_concurrent_callers(library: Native, rng: np.random.Generator) -> None:
    """Several Python threads at once: one gets the pool, the others compute inline."""
    library.control.set_num_threads(2)
    x, w = (
        tensor(rng.standard_normal((3, 256)), "float32"),
        tensor(rng.standard_normal((512, 256)), "float32"),
    )
    expected = empty((3, 512), "float32")
    library.call("linear", x, 1, [w], None, expected)
    wrong: list[int] = []

    def work() -> None:
        for _ in range(50):
            y = empty((3, 512), "float32")
            library.call("linear", x, 1, [w], None, y)
            if not np.array_equal(y.array, expected.array):
                wrong.append(1)

    callers = [threading.Thread(target=work) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert not wrong


FORK_PROBE = """
import ctypes, os, sys
from ops.tests.native import Native, native_path
from ops.tests.test_thread_pool import run_pool
library = Native(native_path())
library.control.set_num_threads(3)
assert run_pool(library, 100, 1000) == 5050
for _ in range(5):
    child = os.fork()
    if child == 0:
        ok = library.control.num_threads() == 3
        ok = ok and all(run_pool(library, 100, 1000) == 5050 for _ in range(20))
        os._exit(0 if ok else 1)
    assert run_pool(library, 100, 1000) == 5050
    assert os.waitpid(child, 0)[1] == 0
print("forked")
"""


def test_fork() -> None:
    """A child of fork gets its own workers; parent and child keep computing. In a process of its
    own: MindSpore, which other tests load, does not survive a fork."""
    result = subprocess.run(
        [sys.executable, "-c", FORK_PROBE],
        env={**os.environ, "VMO_TEST_LIBRARY": str(native_path())},
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.stdout == "forked\n", result.stderr


def pool_threads_cpu(before: set[str]) -> float:
    """CPU seconds of the threads of this process that are not in `before`."""
    ticks = 0
    for task in set(os.listdir("/proc/self/task")) - before:
        fields = Path(f"/proc/self/task/{task}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def test_idle_pool_uses_no_cpu(library: Native) -> None:
    library.control.set_num_threads(1)
    before = set(os.listdir("/proc/self/task"))
    library.control.set_num_threads(4)
    run_pool(library, 100, 1000)
    assert len(set(os.listdir("/proc/self/task")) - before) == 3
    time.sleep(0.05)
    start = pool_threads_cpu(before)
    time.sleep(0.5)
    assert pool_threads_cpu(before) - start <= 0.02  # two clock ticks


def test_results_do_not_depend_on_threads(library: Native, rng: np.random.Generator) -> None:
    x, w = (
        tensor(rng.standard_normal((30, 128)), "bfloat16"),
        tensor(rng.standard_normal((300, 128)), "bfloat16"),
    )
    results = []
    for threads in (1, 2, 5):
        library.control.set_num_threads(threads)
        y = empty((30, 300), "bfloat16")
        library.call("linear", x, 1, [w], None, y)
        results.append(Tensor(y.array, "bfloat16").array)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
