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
    right: list[bool] = []

    def work() -> None:
        for _ in range(50):
            y = empty((3, 512), "float32")
            library.call("linear", x, 1, [w], None, y)
            right.append(np.array_equal(y.array, expected.array))

    callers = [threading.Thread(target=work) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert not any(caller.is_alive() for caller in callers)
    assert right == [True] * 200


def test_a_long_job_does_not_block_other_callers(library: Native) -> None:
    """They get the thread count without waiting and run their tasks themselves."""
    library.control.set_num_threads(2)
    long_job = threading.Thread(target=run_pool, args=(library, 2, 3_000_000_000))
    long_job.start()
    time.sleep(0.05)
    assert library.control.num_threads() == 2
    assert run_pool(library, 100) == 5050
    assert long_job.is_alive()
    long_job.join(30)
    assert not long_job.is_alive()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_throwing_task_fails_the_call_and_not_the_pool(library: Native, threads: int) -> None:
    library.control.set_num_threads(threads)
    total = ctypes.c_int64(-1)
    for _ in range(50):
        status = library.functions.vmo_test_pool(
            ctypes.c_int64(1000), ctypes.c_int64(-1), ctypes.byref(total)
        )
        assert status == 1
        assert library.control.last_error() == "vmo_test_pool: failed: a task threw"
        assert total.value == -1
        assert run_pool(library, 1000) == 500500


def probe(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own, with the library under test."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "VMO_TEST_LIBRARY": str(native_path())},
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


# The address space left holds some thread stacks, not 200.
NO_THREADS_PROBE = """
import ctypes, resource
from ops.tests.native import Native, native_path
from ops.tests.test_thread_pool import run_pool
library = Native(native_path())
pages = int(open("/proc/self/statm").read().split()[0])
limits = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (64 << 20), limits[1]))
library.control.set_num_threads(200)
total = ctypes.c_int64()
status = library.functions.vmo_test_pool(
    ctypes.c_int64(1000), ctypes.c_int64(1), ctypes.byref(total)
)
assert status == 1
assert library.control.last_error().startswith("vmo_test_pool: "), library.control.last_error()
resource.setrlimit(resource.RLIMIT_AS, limits)
library.control.set_num_threads(3)
assert run_pool(library, 100, 1000) == 5050
print("survived")
"""


def test_a_refused_thread_is_an_error() -> None:
    result = probe(NO_THREADS_PROBE)
    assert result.stdout == "survived\n", result.stderr


# Children are forked while other threads record errors.
FORK_ERRORS_PROBE = """
import ctypes, os, threading
from ops.tests.native import Native, native_path
library = Native(native_path())
stop = threading.Event()
def fail():
    while not stop.is_set():
        library.functions.vmo_core_silu(None, None)
threads = [threading.Thread(target=fail) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(100):
    child = os.fork()
    if child == 0:
        library.functions.vmo_clear_error()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
print("forked")
"""


def test_fork_while_others_record_errors() -> None:
    result = probe(FORK_ERRORS_PROBE)
    assert result.stdout == "forked\n", result.stderr


UNLOAD_PROBE = """
import _ctypes, ctypes, time
from ops.tests.native import native_path
library = ctypes.CDLL(str(native_path()))
library.vmo_set_num_threads(3)
total = ctypes.c_int64()
assert library.vmo_test_pool(ctypes.c_int64(9), ctypes.c_int64(9), ctypes.byref(total)) == 0
_ctypes.dlclose(library._handle)
time.sleep(0.05)
assert str(native_path()) in open("/proc/self/maps").read()
print("loaded")
"""


def test_dlclose_leaves_the_workers_their_code() -> None:
    result = probe(UNLOAD_PROBE)
    assert result.stdout == "loaded\n", result.stderr


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
    result = probe(FORK_PROBE)
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
