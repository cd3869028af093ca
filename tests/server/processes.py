# SPDX-License-Identifier: Apache-2.0
"""The processes of a server, what they hold, and requests that keep them busy."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from vllm_mindspore.cli.server import Server

_MAPPED = re.compile(r"(/dev/shm/\S+)")
_TOKENS_BEFORE = 20


@dataclass
class Family:
    """A server's processes at one moment, and the shared memory they had."""

    processes: list[psutil.Process]
    shared_memory: set[Path] = field(default_factory=set)

    @classmethod
    def of(cls, server: Server) -> Family:
        """The serving process and all below it."""
        top = psutil.Process(server.pid)
        family = cls([top, *top.children(recursive=True)])
        for process in family.processes:
            maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
            family.shared_memory |= {Path(name) for name in _MAPPED.findall(maps)}
        return family

    def named(self, title: str) -> psutil.Process:
        """The one process with `title` in its command line (vLLM sets it)."""
        (found,) = [item for item in self.processes if title in " ".join(item.cmdline())]
        return found

    def assert_gone(self, timeout: float) -> None:
        """No process runs after `timeout` seconds, and no shared memory of theirs is left."""
        _, left = psutil.wait_procs(self.processes, timeout=timeout)
        running = []
        for process in left:
            with suppress(psutil.NoSuchProcess):
                if (
                    process.status() != psutil.STATUS_ZOMBIE
                ):  # nobody collects orphans in a container
                    running.append(process)
        assert not running, running
        assert not [str(item) for item in self.shared_memory if item.exists()]


@dataclass
class Stream:
    """One streamed completion: its pieces, and how it ended."""

    pieces: int = 0
    finish_reason: str | None = None
    error: str | None = None


@contextmanager
def open_streams(server: Server, model: str, count: int) -> Iterator[list[Stream]]:
    """Long completions that are under way in the body; they have ended after it."""
    streams = [Stream() for _ in range(count)]
    under_way = [threading.Event() for _ in range(count)]
    threads = [
        threading.Thread(target=_read, args=(server.url, model, stream, event), daemon=True)
        for stream, event in zip(streams, under_way, strict=True)
    ]
    for thread in threads:
        thread.start()
    assert all(event.wait(60) for event in under_way)
    yield streams
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


def _read(url: str, model: str, stream: Stream, under_way: threading.Event) -> None:
    request = {
        **{"model": model, "prompt": "Once upon a time", "max_tokens": 8000},
        **{"ignore_eos": True, "stream": True, "temperature": 0},
    }
    try:
        with httpx.stream("POST", f"{url}/v1/completions", json=request, timeout=60) as answer:
            for line in answer.iter_lines():
                _take(line, stream)
                if stream.pieces > _TOKENS_BEFORE:
                    under_way.set()
    except httpx.HTTPError as failure:
        stream.error = repr(failure)


def _take(line: str, stream: Stream) -> None:
    if not line.startswith("data: {"):
        return
    chunk = json.loads(line.removeprefix("data: "))
    if "error" in chunk:
        stream.error = chunk["error"]["message"]
        return
    stream.pieces += 1
    stream.finish_reason = chunk["choices"][0]["finish_reason"]
