# SPDX-License-Identifier: Apache-2.0
"""A `vllm-mindspore serve` child process: start, wait until it answers, stop without orphans."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

HOST = "127.0.0.1"
_POLL_SECONDS = 0.5
_STOP_SECONDS = 30.0
_LEFTOVER_SECONDS = 10.0  # an engine that lost its server stops within these
_LOG_TAIL_LINES = 40
_PROGRAM = (sys.executable, "-m", "vllm_mindspore.cli.main")


class ServerError(RuntimeError):
    """The server ended or did not answer in time; the message has the tail of its log."""


class Server:
    """Context manager around one server on a free local port.

    Args:
        model: folder or Hugging Face name.
        log: file that receives everything the server prints.
        options: further `serve` options.
        program: the command that has `serve`; this package's by default.
    """

    def __init__(
        self,
        model: str,
        log: Path,
        options: Sequence[str] = (),
        program: Sequence[str] = _PROGRAM,
    ) -> None:
        self.log = log
        self.port = _free_port()
        self._command = [
            *(*program, "serve", model),
            *("--host", HOST, "--port", str(self.port), *options),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Base address, without a trailing slash."""
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the serving process, which also is the id of its session."""
        return self._running().pid

    def __enter__(self) -> Server:
        """Start the server; it is not ready yet."""
        with self.log.open("wb") as sink:
            # An own session, so that stopping can reach the engine processes too.
            self._process = subprocess.Popen(
                self._command, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.stop()

    def wait_until_ready(self, timeout: float, progress: Callable[[float], None]) -> float:
        """Poll /health; returns the seconds it took.

        Args:
            timeout: seconds to wait at most.
            progress: called about twice a second with the elapsed seconds.

        Raises:
            ServerError: the server ended, or the time is over.
        """
        start = time.monotonic()
        while (elapsed := time.monotonic() - start) < timeout:
            if self._running().poll() is not None:
                raise ServerError(f"The server ended while starting.\n{self.log_tail()}")
            if _answers(f"{self.url}/health"):
                return elapsed
            progress(elapsed)
            time.sleep(_POLL_SECONDS)
        raise ServerError(f"No answer within {timeout:.0f} s.\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines of the log, with its path."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([f"End of {self.log}:", *lines[-_LOG_TAIL_LINES:]])

    def wait(self, timeout: float) -> int:
        """Exit code of the server, negative for a signal.

        Raises:
            ServerError: it still runs after `timeout` seconds.
        """
        try:
            return self._running().wait(timeout)
        except subprocess.TimeoutExpired:
            raise ServerError(f"Running after {timeout:.0f} s.\n{self.log_tail()}") from None

    def stop(self) -> None:
        """SIGTERM to the server's own pid; what does not end by itself is killed."""
        process = self._running()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _end_session(process.pid)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("The server was not started: use it in a `with` statement.")
        return self._process


def _end_session(session: int) -> None:
    """Wait for the processes the server leaves (they end with it), then kill what is left."""
    deadline = time.monotonic() + _LEFTOVER_SECONDS
    while (left := _processes_of(session)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS / 5)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _processes_of(session: int) -> list[psutil.Process]:
    """Its running processes; they may be in several process groups."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
