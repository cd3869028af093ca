# SPDX-License-Identifier: Apache-2.0
"""What a process and its descendants use: CPU time and memory; and their end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

_POLL_SECONDS = 0.1
# Of one core, used by the side that waits. Timers and health checks stay well below.
IDLE_SHARE = 0.03
_LOG_TAIL = 2000  # characters


@dataclass(frozen=True)
class Memory:
    """Memory of a process tree in bytes.

    Attributes:
        peak_rss: sum of each living process's highest resident size; shared pages count in each.
        pss: present resident size, shared pages divided among those who share them.
    """

    peak_rss: int
    pss: int


def tree(pid: int) -> list[psutil.Process]:
    """The process and its living descendants."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """CPU time of the tree until now; of ended children, what their parents waited for."""
    total = 0.0
    for process in tree(pid):
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue  # ended meanwhile
    return total


class IdleWatch:
    """Adds up the CPU time of those who should wait while another one is measured."""

    def __init__(self) -> None:
        self._waited = self._used = 0.0

    @contextmanager
    def over(self, waiting: Sequence[int]) -> Iterator[None]:
        """Watches the trees of these process ids while the body runs."""
        before = sum(cpu_seconds(pid) for pid in waiting)
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start
        self._used += sum(cpu_seconds(pid) for pid in waiting) - before

    def share(self) -> float:
        """Of one core: what those who waited have used of the time they waited."""
        return self._used / self._waited

    def require_idle(self) -> None:
        """Raises RuntimeError when those who waited have computed: the comparison is worthless."""
        if self.share() > IDLE_SHARE:
            raise RuntimeError(
                f"The waiting side used {self.share():.1%} of a core (at most {IDLE_SHARE:.0%} is "
                "tolerated): it took time from the one that was measured."
            )


def memory(pid: int) -> Memory:
    """Memory of the tree; Linux only."""
    peak = pss = 0
    for process in tree(pid):
        try:
            peak += _kilobytes(process.pid, "status", "VmHWM:")
            pss += _kilobytes(process.pid, "smaps_rollup", "Pss:")
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
    return Memory(peak << 10, pss << 10)


def _kilobytes(pid: int, file: str, field: str) -> int:
    with open(f"/proc/{pid}/{file}", encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith(field):
                return int(line.split()[1])
    return 0  # a zombie has no memory


def log_tail(file: Path) -> str:
    """The end of a log, for an error message."""
    return file.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:]


def run_logged(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
) -> str:
    """Runs a command in `folder` to its end; what it printed, its errors going to `log`.

    Raises:
        RuntimeError: its exit code is not 0; the message has the end of both.
    """
    with log.open("wb") as errors:
        result = subprocess.run(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    if result.returncode:
        printed = result.stdout[-_LOG_TAIL:]
        raise RuntimeError(f"{command[0]} failed ({result.returncode}):\n{printed}{log_tail(log)}")
    return result.stdout


def stop(process: subprocess.Popen[bytes], patience: float = 30.0) -> None:
    """SIGTERM to a process that leads its session; what is left of the session is killed.

    Both the process and then those it leaves get `patience` seconds to end by themselves.
    """
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    deadline = time.monotonic() + patience
    try:
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(_POLL_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # nobody is left
