# SPDX-License-Identifier: Apache-2.0
"""A server that is still starting ends when it is asked to, and when its engine is killed."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import RunPython
from tests.server.processes import Family
from tests.server.test_stopping import (
    GONE_SECONDS,
    MULTIPROC,
    OURS,
    PLAIN,
    START_SECONDS,
    UNIPROC,
    left_in,
    send,
)
from vllm_mindspore.cli.server import Server

full = pytest.mark.full

# What the log says at moments of a start, in order.
CONFIGURED = "Final IR op priority"
CONSTRUCTING = "Initializing a V1 LLM engine"
COMPILING = "KV cache layout"
LOADED = "init engine (profile"
ALMOST_SERVING = "Starting vLLM server"


def wait_for(server: Server, text: str) -> None:
    """Until the log has `text`."""
    deadline = time.monotonic() + START_SECONDS
    while text not in server.log.read_text(encoding="utf-8", errors="replace"):
        assert time.monotonic() < deadline, server.log_tail()
        assert psutil.pid_exists(server.pid), server.log_tail()
        time.sleep(0.02)


def started(model: Path, folder: Path, program: tuple[str, ...], *options: str) -> Server:
    options = ("--max-model-len", "2048", "--kv-cache-memory-bytes", "64M", *options)
    return Server(str(model), folder / "log", options, program)


@pytest.mark.parametrize(
    ("program", "number", "to_group", "moment", "options"),
    [
        pytest.param(PLAIN, signal.SIGTERM, False, CONSTRUCTING, UNIPROC, id="plain-sigterm"),
        *(
            pytest.param(*case, marks=full)
            for case in [
                (PLAIN, signal.SIGTERM, False, CONFIGURED, UNIPROC),
                (PLAIN, signal.SIGTERM, False, COMPILING, UNIPROC),
                (PLAIN, signal.SIGTERM, True, LOADED, UNIPROC),
                (PLAIN, signal.SIGTERM, False, ALMOST_SERVING, UNIPROC),
                (PLAIN, signal.SIGINT, False, CONFIGURED, UNIPROC),
                (PLAIN, signal.SIGINT, True, CONSTRUCTING, UNIPROC),
                (OURS, signal.SIGINT, True, CONFIGURED, UNIPROC),
                (OURS, signal.SIGINT, True, COMPILING, UNIPROC),
                (OURS, signal.SIGINT, True, LOADED, UNIPROC),
                (OURS, signal.SIGINT, True, ALMOST_SERVING, UNIPROC),
                (OURS, signal.SIGTERM, True, CONSTRUCTING, MULTIPROC),
                (PLAIN, signal.SIGINT, True, COMPILING, MULTIPROC),
                (PLAIN, signal.SIGTERM, False, CONSTRUCTING, ("--data-parallel-size", "2")),
                (PLAIN, signal.SIGINT, True, LOADED, ("--data-parallel-size", "2")),
            ]
        ),
    ],
)
def test_signal_ends_a_start(
    tiny_model: Path,
    folder: Path,
    program: tuple[str, ...],
    number: signal.Signals,
    to_group: bool,
    moment: str,
    options: tuple[str, ...],
) -> None:
    with started(tiny_model, folder, program, *options) as server:
        wait_for(server, moment)
        family = Family.of(server)
        send(server, number, to_group)
        assert server.wait(GONE_SECONDS) in (0, 128 + number)
        family.assert_gone(timeout=GONE_SECONDS)
        log = server.log.read_text(encoding="utf-8", errors="replace")
    assert "Traceback" not in log
    if moment != ALMOST_SERVING:  # which may be over before the signal arrives
        assert "startup complete" not in log
    assert not left_in(folder)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(LOADED, id="before_its_first_call"),
        pytest.param(CONSTRUCTING, id="constructing", marks=full),
        pytest.param(COMPILING, id="compiling", marks=full),
        pytest.param(ALMOST_SERVING, id="almost_serving", marks=full),
    ],
)
def test_killed_engine_ends_a_start_with_an_error(
    tiny_model: Path, folder: Path, moment: str
) -> None:
    with started(tiny_model, folder, PLAIN) as server:
        wait_for(server, moment)
        family = Family.of(server)
        family.named("EngineCore").kill()
        assert server.wait(GONE_SECONDS) == 1
        family.assert_gone(timeout=GONE_SECONDS)
    assert not left_in(folder)


@full
@pytest.mark.parametrize("moment", [CONFIGURED, CONSTRUCTING, COMPILING])
def test_engine_ends_after_its_starting_server_was_killed(
    tiny_model: Path, folder: Path, moment: str
) -> None:
    with started(tiny_model, folder, PLAIN) as server:
        wait_for(server, moment)
        time.sleep(1)  # until there is a process to be left behind
        family = Family.of(server)
        assert len(family.processes) > 1
        send(server, signal.SIGKILL, to_group=False)
        family.assert_gone(timeout=GONE_SECONDS + 10)  # the engine may be importing


# A script whose engine is killed at a moment: while it works on the first call, or generates.
SCRIPT = """
import multiprocessing, os, signal, threading
from vllm import LLM, SamplingParams
from vllm.v1.engine.core_client import SyncMPClient
from vllm.v1.engine.exceptions import EngineDeadError

def kill_at_call(self, *args):
    (engine,) = multiprocessing.active_children()
    os.kill(engine.pid, signal.SIGSTOP)  # so that it cannot answer
    send(self, *args)
    engine.kill()

send = SyncMPClient._send_input
if {first_call}:
    SyncMPClient._send_input = kill_at_call
try:
    llm = LLM({model!r}, max_model_len=4096, kv_cache_memory_bytes=64 << 20)
    (engine,) = multiprocessing.active_children()
    threading.Timer(1, engine.kill).start()
    llm.generate(["Once"], SamplingParams(max_tokens=4000, ignore_eos=True))
except EngineDeadError:
    print("engine is dead")
"""


@pytest.mark.parametrize(
    "first_call", [pytest.param(True, id="first_call", marks=full), pytest.param(False, id="later")]
)
def test_killed_engine_is_an_error_in_a_script(
    tiny_model: Path, run_python: RunPython, first_call: bool
) -> None:
    script = SCRIPT.format(model=str(tiny_model), first_call=first_call)
    assert "engine is dead" in run_python(script, timeout=120).stdout
