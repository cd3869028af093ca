# SPDX-License-Identifier: Apache-2.0
"""What processes with vLLM's names do about Ctrl-C and a parent that is gone; others do nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from vllm_mindspore import process_end

RunPython = Callable[..., subprocess.CompletedProcess[str]]

# A parent that starts a child by one method under one name, and waits.
FAMILY = """
import multiprocessing, os, sys, time
from vllm_mindspore import process_end

def child(stubborn):
    import signal
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    process_end._GRACE_SECONDS = 1.0
    process_end.follow_parent()
    process_end.follow_parent()
    print("child", os.getpid(), os.getpgrp() == os.getpid(), os.getsid(0), flush=True)
    time.sleep(120)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    process = context.Process(target=child, args=(sys.argv[3] == "stubborn",), name=sys.argv[2])
    process.start()
    process.join()
"""


@pytest.mark.parametrize(
    ("method", "name", "kind"),
    [
        ("spawn", "EngineCore", "quick"),
        ("fork", "EngineCore_DP1", "quick"),
        ("fork", "VllmWorker-0", "quick"),
        ("fork", "EngineCore", "stubborn"),
    ],
)
def test_ends_when_its_parent_is_gone(tmp_path: Path, method: str, name: str, kind: str) -> None:
    script = tmp_path / "family.py"
    script.write_text(FAMILY)
    with subprocess.Popen(
        [sys.executable, str(script), method, name, kind],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        _, pid, own_group, session = parent.stdout.readline().split()
        try:
            assert own_group == "True"  # a terminal's Ctrl-C does not reach it
            assert int(session) == parent.pid
            child = psutil.Process(int(pid))
            assert [thread for thread in child.threads() if thread.id != child.pid]
            parent.kill()
            _, left = psutil.wait_procs([child], timeout=8)
            assert not [item for item in left if item.status() != psutil.STATUS_ZOMBIE]
        finally:
            parent.kill()
            for process in psutil.process_iter(["pid"]):
                if process.pid == int(pid):
                    process.kill()


def test_other_processes_stay_as_they_are(run_python: RunPython) -> None:
    run_python(
        """
import multiprocessing, os, threading
from vllm_mindspore import process_end

def child():
    before = os.getpgrp(), threading.active_count()
    process_end.follow_parent()
    assert (os.getpgrp(), threading.active_count()) == before

if __name__ == "__main__":
    child()
    process = multiprocessing.get_context("fork").Process(target=child, name="Process-1")
    process.start()
    process.join()
    assert process.exitcode == 0
"""
    )


# A child that is watched because its parent loaded us, though nothing in it calls us.
WATCHED = """
import multiprocessing, os, sys, time
from vllm_mindspore import plugin

def child():
    print("child", os.getpid(), os.getpgrp() == os.getpid(), flush=True)
    time.sleep(120)

if __name__ == "__main__":
    process = multiprocessing.get_context(sys.argv[1]).Process(target=child, name="EngineCore")
    process.start()
    process.join()
"""


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_engine_is_watched_from_its_start(tmp_path: Path, method: str) -> None:
    script = tmp_path / "watched.py"
    script.write_text(WATCHED)
    with subprocess.Popen(
        [sys.executable, str(script), method], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        _, pid, own_group = parent.stdout.readline().split()
        child = psutil.Process(int(pid))
        try:
            assert own_group == "True"
            parent.kill()
            _, left = psutil.wait_procs([child], timeout=8)
            assert not [item for item in left if item.status() != psutil.STATUS_ZOMBIE]
        finally:
            parent.kill()
            if child.is_running():
                child.kill()


# What a server that starts meets: vLLM's handler, and code that is not to see the signal.
STARTING = """
import os, signal, sys, time
from vllm_mindspore import process_end

def _interrupt_init(number, frame):
    raise KeyboardInterrupt

process_end._LEAVE_SECONDS = 2
if sys.argv[2] == "server":
    signal.signal(signal.SIGTERM, _interrupt_init)
process_end.leave_on_signals_while_starting()
try:
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit(7)
except SystemExit:
    if sys.argv[3] == "leaves":
        raise
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "kind", "way", "code"),
    [
        ("SIGTERM", "server", "leaves", 143),
        ("SIGINT", "server", "leaves", 130),
        ("SIGTERM", "server", "is stuck", -signal.SIGALRM),
        ("SIGTERM", "script", "leaves", -signal.SIGTERM),
        ("SIGINT", "script", "leaves", 7),
    ],
)
def test_server_that_starts_leaves_on_signals(
    tmp_path: Path, number: str, kind: str, way: str, code: int
) -> None:
    script = tmp_path / "starting.py"
    script.write_text(STARTING)
    command = [sys.executable, str(script), number, kind, way]
    child = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert child.returncode == code
    assert not child.stderr


def test_starting_handler_is_that_of_vllm() -> None:
    """A new name would leave the handler in place, and signals without effect."""
    from vllm.entrypoints.launchers.api_server import entry

    source = Path(entry.__file__).read_text(encoding="utf-8")
    assert f"signal.signal(signal.SIGTERM, {process_end._STARTING_HANDLER})" in source


def test_names_are_those_of_vllm() -> None:
    """vLLM names its processes in its source; a new name would leave them without a watch."""
    import vllm

    package = Path(vllm.__file__).parent
    engines = (package / "v1/engine/utils.py").read_text(encoding="utf-8")
    ranks = (package / "v1/executor/multiproc_executor.py").read_text(encoding="utf-8")
    engine, rank = process_end._PROCESS_NAMES
    assert f'else "{engine}"' in engines
    assert f'name=f"{rank}{{rank}}"' in ranks
    client = (package / "v1/engine/core_client.py").read_text(encoding="utf-8")
    assert all(f'name="{name}"' in client for name in process_end._ENGINE_THREADS)


ENGINE_THREAD = """
import threading, time, weakref
import vllm_mindspore
class Client: pass
told, client = threading.Event(), Client()
def take():
    told.wait()
    time.sleep(0.5)
    print("tensors are released", flush=True)
threading.Thread(target=take, name={name!r}, daemon=True).start()
weakref.finalize(client, told.set)
"""


def test_a_script_ends_behind_the_threads_of_its_engine(run_python: RunPython) -> None:
    """Which releases tensors when it is told to end: in an interpreter that is gone, an abort."""
    for name in process_end._ENGINE_THREADS:
        assert "tensors are released" in run_python(ENGINE_THREAD.format(name=name)).stdout
    assert "released" not in run_python(ENGINE_THREAD.format(name="another")).stdout


def test_leaving_does_not_take_the_interpreter_apart(run_python: RunPython) -> None:
    """What is registered for the end is called, and the exit code is the signal's."""
    result = run_python(
        """
import atexit, os, signal, time
from vllm_mindspore import process_end

class Slow:
    def __del__(self, sleep=time.sleep):
        sleep(60)

slow = Slow()
atexit.register(print, "ended in order")
process_end.leave_on_signals()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
""",
        timeout=30,
        check=False,
    )
    assert result.returncode == 128 + signal.SIGTERM, result.stderr
    assert result.stdout == "ended in order\n"
