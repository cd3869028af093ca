# SPDX-License-Identifier: Apache-2.0
"""Signals stop a server in order, kill -9 of a process of it ends the others; nothing stays."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.server.conftest import START_SECONDS
from tests.server.processes import Family, open_streams
from vllm_mindspore.cli.server import Server

OURS = (sys.executable, "-m", "vllm_mindspore.cli.main")
PLAIN = (str(Path(sys.executable).with_name("vllm")),)
UNIPROC = ()
MULTIPROC = ("--distributed-executor-backend", "mp")
RANKS = ("--tensor-parallel-size", "2")
STOP_SECONDS = 10
# The promise is 10 s on a machine that does nothing else; a loaded one may take longer.
GONE_SECONDS = 20
STREAMS = 3

full = pytest.mark.full


@contextmanager
def started(
    model: Path, folder: Path, program: tuple[str, ...], options: tuple[str, ...]
) -> Iterator[Server]:
    options += ("--max-model-len", "8192", "--kv-cache-memory-bytes", "256M")
    with Server(str(model), folder / "log", options, program) as server:
        server.wait_until_ready(START_SECONDS, lambda seconds: None)
        yield server


def left_in(folder: Path) -> list[str]:
    """Files that should not be there. Sockets and the store of its ranks are vLLM's: it leaves
    sockets in any case, and the store when it is killed."""
    found = [item for item in folder.rglob("*") if not (item.is_dir() or item.is_socket())]
    return [item.name for item in found if not item.name.startswith(("log", "vllm_dist_"))]


def send(server: Server, number: signal.Signals, to_group: bool) -> None:
    (os.killpg if to_group else os.kill)(server.pid, number)


@pytest.mark.parametrize(
    ("program", "options", "number", "to_group", "busy"),
    [
        pytest.param(PLAIN, UNIPROC, signal.SIGINT, True, True, id="plain-ctrl_c-busy"),
        # SIGTERM under load is also how the short soak ends.
        *(
            pytest.param(program, options, number, to_group, busy, marks=full)
            for program, options, number, to_group, busy in [
                (OURS, UNIPROC, signal.SIGTERM, False, False),
                (PLAIN, UNIPROC, signal.SIGINT, False, True),
                (PLAIN, UNIPROC, signal.SIGINT, True, False),
                (PLAIN, UNIPROC, signal.SIGTERM, False, True),
                (PLAIN, UNIPROC, signal.SIGTERM, True, True),
                (OURS, UNIPROC, signal.SIGINT, True, True),
                (OURS, UNIPROC, signal.SIGTERM, False, True),
                (PLAIN, MULTIPROC, signal.SIGINT, True, True),
                (PLAIN, MULTIPROC, signal.SIGTERM, False, True),
                (OURS, MULTIPROC, signal.SIGINT, True, False),
                (PLAIN, RANKS, signal.SIGINT, True, True),
                (OURS, RANKS, signal.SIGTERM, False, True),
            ]
        ),
    ],
)
def test_signal_stops_in_order(
    tiny_model: Path,
    folder: Path,
    program: tuple[str, ...],
    options: tuple[str, ...],
    number: signal.Signals,
    to_group: bool,
    busy: bool,
) -> None:
    with started(tiny_model, folder, program, options) as server:
        family = Family.of(server)
        with open_streams(server, str(tiny_model), STREAMS if busy else 0) as streams:
            send(server, number, to_group)
            assert server.wait(STOP_SECONDS + 10) == 0
        family.assert_gone(timeout=5)
        log = server.log.read_text(encoding="utf-8", errors="replace")
    assert {stream.finish_reason for stream in streams} <= {"abort"}, streams
    assert not [stream.error for stream in streams if stream.error]
    assert "Traceback" not in log
    assert "EngineDeadError" not in log
    assert not left_in(folder)


@pytest.mark.parametrize("busy", [pytest.param(False, marks=full), True], ids=["idle", "busy"])
@pytest.mark.parametrize(
    ("options", "title"),
    [
        pytest.param(UNIPROC, "EngineCore", id="engine"),
        pytest.param(MULTIPROC, "EngineCore", id="engine_with_ranks", marks=full),
        pytest.param(MULTIPROC, "VLLM::Worker", id="rank", marks=full),
        pytest.param(RANKS, "VLLM::Worker_TP1", id="one_of_two_ranks"),
    ],
)
def test_killed_engine_ends_the_server_with_an_error(
    tiny_model: Path, folder: Path, options: tuple[str, ...], title: str, busy: bool
) -> None:
    with started(tiny_model, folder, PLAIN, options) as server:
        family = Family.of(server)
        with open_streams(server, str(tiny_model), STREAMS if busy else 0) as streams:
            family.named(title).kill()
            begin = time.monotonic()
            assert server.wait(GONE_SECONDS + 10) == 1
            family.assert_gone(timeout=GONE_SECONDS)
            assert time.monotonic() - begin < GONE_SECONDS
    assert all("EngineCore" in (stream.error or "") for stream in streams), streams
    assert not left_in(folder)


@pytest.mark.parametrize("busy", [pytest.param(False, marks=full), True], ids=["idle", "busy"])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(UNIPROC, id="engine"),
        pytest.param(MULTIPROC, id="rank", marks=full),
        pytest.param(RANKS, id="two_ranks", marks=full),
    ],
)
def test_engine_ends_after_its_server_was_killed(
    tiny_model: Path, folder: Path, options: tuple[str, ...], busy: bool
) -> None:
    with started(tiny_model, folder, OURS, options) as server:
        family = Family.of(server)
        with open_streams(server, str(tiny_model), STREAMS if busy else 0) as streams:
            os.kill(server.pid, signal.SIGKILL)
            begin = time.monotonic()
            assert server.wait(5) == -signal.SIGKILL
            family.assert_gone(timeout=GONE_SECONDS)
            assert time.monotonic() - begin < GONE_SECONDS
    assert all(stream.error for stream in streams), streams
    assert not left_in(folder)
