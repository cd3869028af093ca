# SPDX-License-Identifier: Apache-2.0
"""A server of one side as a child process, and the requests this benchmark sends to it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.peers.processes import Memory, log_tail, memory, stop
from benchmarks.peers.sides import Side, command_line_options

HOST = "127.0.0.1"
MODEL = "peer-comparison"
_POLL_SECONDS = 0.05
_READY_SECONDS = 900.0
_REQUEST_SECONDS = 600.0


class Server:
    """Context manager around `serve`; `start_time` is the moment before the process was made.

    Args:
        side: whose server.
        checkpoint: model folder.
        work: where its log and its stray files go.
        cache: where it keeps what it compiles.
    """

    def __init__(self, side: Side, checkpoint: Path, work: Path, cache: Path) -> None:
        self.side = side
        self.port = _free_port()
        self._work = work
        self._cache = cache
        self._log = work / "server.log"
        self._command = [
            *(str(side.python), "-m", side.program, "serve", str(checkpoint)),
            *("--host", HOST, "--port", str(self.port), "--served-model-name", MODEL),
            *command_line_options(),
        ]

    @property
    def url(self) -> str:
        """Base address, without a trailing slash."""
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Server:
        """Starts the server; it is not ready yet."""
        self.start_time = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self.side.environment(self._cache),
                cwd=self._work,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops the server and all it has started."""
        stop(self._process)

    def wait_until_ready(self) -> None:
        """Polls /health.

        Raises:
            RuntimeError: the server ended or the time is over; the message has its log's end.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except OSError:
                time.sleep(_POLL_SECONDS)
        raise RuntimeError(f"The server of {self.side.name} ended or hangs:\n{log_tail(self._log)}")

    def first_token(self, prompt_tokens: int) -> float:
        """Sends one streaming request; the moment its first token came."""
        body = _completion([list(range(3, 3 + prompt_tokens))], 1) | {"stream": True}
        with self._post(body) as response:
            for line in response:
                if line.startswith(b"data: {"):
                    return time.perf_counter()
        raise RuntimeError(f"{self.side.name} streamed no token")

    def complete(self, requests: int, prompt_tokens: int, new_tokens: int) -> None:
        """Sends `requests` prompts at once and waits for `new_tokens` tokens of each."""
        prompts = [[(7 * i + r) % 1000 + 3 for i in range(prompt_tokens)] for r in range(requests)]
        with self._post(_completion(prompts, new_tokens)) as response:
            usage = json.load(response)["usage"]
        if usage["completion_tokens"] != requests * new_tokens:
            raise RuntimeError(f"expected {requests * new_tokens} tokens, found {usage}")

    def memory(self) -> Memory:
        """Of the server and all it has started."""
        return memory(self._process.pid)

    @property
    def pid(self) -> int:
        """Of the server, from which all its processes descend."""
        return self._process.pid

    def _post(self, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self.url}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        return urllib.request.urlopen(request, timeout=_REQUEST_SECONDS)


def _completion(prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
    return {
        "model": MODEL,
        "prompt": prompts,
        "max_tokens": new_tokens,
        "temperature": 0,
        "ignore_eos": True,
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
