# SPDX-License-Identifier: Apache-2.0
"""Engines that live through a run and take turns: one computes, the other one is idle."""

from __future__ import annotations

import json
import select
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from benchmarks.peers.processes import IdleWatch, log_tail, stop
from benchmarks.peers.sides import OPTIONS, Side

_CHILD = Path(__file__).with_name("engine_child.py")
# vLLM's workers poll for a second after their last step before they sleep.
SETTLE_SECONDS = 1.5
_LEAVE_SECONDS = 20.0
_ANSWER_SECONDS = 600.0  # vLLM's CPU build compiles for minutes on a busy machine


class Engine:
    """Context manager around one side's engine_child.py.

    Args:
        side: whose engine.
        checkpoint: model folder.
        work: where its log, its caches and its stray files go.
    """

    def __init__(self, side: Side, checkpoint: Path, work: Path) -> None:
        self.side = side
        work.mkdir(parents=True, exist_ok=True)
        self._work = work
        self._log = work / "engine.log"
        options = json.dumps({**OPTIONS, "skip_tokenizer_init": True})
        self._command = [str(side.python), str(_CHILD), str(checkpoint), options]

    def __enter__(self) -> Engine:
        """Starts the engine and waits until it is ready."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self.side.environment(self._work),
                cwd=self._work,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        try:
            self.ready_seconds = self._answer()
        except BaseException:
            stop(self._process)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the engine: it leaves when its input ends, else by force."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_LEAVE_SECONDS)
        stop(self._process)

    def generate(self, batch: int, prompt: int, new: int) -> float:
        """Seconds for `batch` prompts of `prompt` tokens to give `new` tokens each.

        Raises:
            RuntimeError: the engine ended or hangs; the message has the end of its log.
        """
        assert self._process.stdin is not None
        request = json.dumps({"batch": batch, "prompt": prompt, "new": new})
        self._process.stdin.write(request.encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    @property
    def pid(self) -> int:
        """Of the child, from which all its processes descend."""
        return self._process.pid

    def _answer(self) -> float:
        assert self._process.stdout is not None
        answered, _, _ = select.select([self._process.stdout], [], [], _ANSWER_SECONDS)
        line = self._process.stdout.readline() if answered else b""
        if not line:
            what = "ended" if answered else f"gave no answer within {_ANSWER_SECONDS:g} s"
            raise RuntimeError(f"The engine of {self.side.name} {what}:\n{log_tail(self._log)}")
        return float(json.loads(line)["seconds"])


class Turns:
    """Lets engines take turns, all others being watched meanwhile."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines
        self.watch = IdleWatch()

    def seconds(self, engine: Engine, batch: int, prompt: int, new: int) -> float:
        """`engine.generate`, while the CPU time of all others is watched."""
        with self.watch.over([other.pid for other in self._engines if other is not engine]):
            return engine.generate(batch, prompt, new)

    def settle(self) -> None:
        """Between turns: until the engine that has just computed has stopped polling."""
        time.sleep(SETTLE_SECONDS)
