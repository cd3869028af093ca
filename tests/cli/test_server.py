# SPDX-License-Identifier: Apache-2.0
"""The server child process: ready, failing, stopped; nothing stays behind."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import psutil
import pytest

from vllm_mindspore.cli.server import Server, ServerError


def test_failing_server_shows_the_end_of_its_log(tmp_path: Path) -> None:
    missing = tmp_path / "no_such_model"
    with (
        pytest.raises(ServerError, match=r"ended while starting(.|\n)*no_such_model"),
        Server(str(missing), tmp_path / "log") as server,
    ):
        server.wait_until_ready(timeout=240, progress=lambda seconds: None)


def test_timeout_is_an_error_and_stops_the_server(tmp_path: Path, tiny_model: Path) -> None:
    elapsed: list[float] = []
    with Server(str(tiny_model), tmp_path / "log") as server:
        pid = psutil.Process().children()[-1].pid
        with pytest.raises(ServerError, match=r"No answer within 1 s"):
            server.wait_until_ready(timeout=1, progress=elapsed.append)
    assert elapsed == sorted(elapsed)
    assert len(elapsed) >= 1
    assert not psutil.pid_exists(pid)  # our own child: collected when it was stopped


def test_stopping_before_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not started"):
        Server("model", tmp_path / "log").stop()


@pytest.mark.full
def test_stops_its_engine_too(tmp_path: Path, tiny_model: Path) -> None:
    with Server(str(tiny_model), tmp_path / "log", ["--max-model-len", "512"]) as server:
        assert server.wait_until_ready(timeout=240, progress=lambda seconds: None) > 0
        with urllib.request.urlopen(f"{server.url}/v1/models", timeout=10) as answer:
            assert str(tiny_model) in answer.read().decode()
        family = psutil.Process().children(recursive=True)
        assert len(family) >= 2
    _, left = psutil.wait_procs(family, timeout=5)
    assert not [process for process in left if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    """Ended children of the server are zombies until the init process collects them."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
