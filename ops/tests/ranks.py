# SPDX-License-Identifier: Apache-2.0
"""Groups of real processes for tests: each runs a function as one rank, the parent collects."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from ops.tests.native import native_path
from vllm_mindspore.device.kernel_library import KernelLibrary
from vllm_mindspore.device.rank_group import RankGroup

Body = Callable[[RankGroup], Any]
TIMEOUT = 60.0


class Hub:
    """The exchange of rank 0, by a pipe to each of the others."""

    def __init__(self, ends: list[Connection]) -> None:
        self._ends = ends

    def all_gather(self, value: object) -> list[Any]:
        """Collects, then tells all."""
        found = [value, *(end.recv() for end in self._ends)]
        for end in self._ends:
            end.send(found)
        return found


class Spoke:
    """That of another rank."""

    def __init__(self, ends: list[Connection]) -> None:
        (self._end,) = ends

    def all_gather(self, value: object) -> list[Any]:
        """Tells, then hears all."""
        self._end.send(value)
        found: list[Any] = self._end.recv()
        return found


class _Answer:
    """Sends the text of an exception in place of the answer."""

    def __init__(self, result: Connection) -> None:
        self._result = result

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> bool:
        if error is not None:
            self._result.send("".join(traceback.format_exception(error)))
        return True


def _run(body: Body, index: int, count: int, ends: list[Connection], result: Connection) -> None:
    with _Answer(result):
        library = KernelLibrary(native_path())
        exchange = Spoke(ends) if index else Hub(ends)
        group = RankGroup.form(library, index, count, exchange)
        result.send(body(group))


def run(count: int, body: Body, method: str = "fork") -> list[Any]:
    """What each rank's body returns, or the text of its traceback; None for one that was killed.

    Bodies that use MindSpore need "spawn": it does not survive a fork once it has run.
    Processes are not waited for before all have answered: one that has ended stays a zombie.
    """
    context: Any = multiprocessing.get_context(method)
    pipes = [context.Pipe() for _ in range(count - 1)]
    results = [context.Pipe(duplex=False) for _ in range(count)]
    processes = []
    for index in range(count):
        ends = [pipes[index - 1][1]] if index else [here for here, _ in pipes]
        arguments = (body, index, count, ends, results[index][1])
        processes.append(context.Process(target=_run, args=arguments))
        processes[-1].start()
    for _, sender in results:
        sender.close()
    found = []
    for receiver, _ in results:
        try:
            found.append(receiver.recv() if receiver.poll(TIMEOUT) else "no answer")
        except EOFError:
            found.append(None)
    for process in processes:
        process.join(1)
        process.kill()
        process.join()
    return found
