# SPDX-License-Identifier: Apache-2.0
"""Part `overhead`: what a decode step of ours costs around the kernels, by whom it is spent.

Runs as an own process (`python -m benchmarks.peers.overhead FOLDER ROUNDS`) whose engine lives in
it, with every kernel returning at once. The seams that are timed are vLLM's worker and scheduler
protocols and our backend protocol, so the parts add up to the whole step.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers.engine_child import generate
from benchmarks.peers.processes import run_logged
from benchmarks.peers.report import Bars, Figure, Panel, Part, median
from benchmarks.peers.setting import ROOT, Setting
from benchmarks.peers.sides import OPTIONS

PROMPT_TOKENS, NEW_TOKENS = 32, 64
BATCHES = (1, 8, 32)
GOAL_MS = 5.0
WHOLE = "whole step"
GRAPH = "graph calls"
# Row titles, in the order of a step.
PARTS = ("scheduler", "input preparation", GRAPH, "sampling", "requests and output")

Step = dict[str, float]
"""Part -> milliseconds of a step."""


class Stopwatch:
    """Replaces a method of an object by one that also notes how long each call took."""

    def __init__(self, owner: Any, method: str) -> None:
        self._call: Callable[..., Any] = getattr(owner, method)
        self.seconds: list[float] = []
        setattr(owner, method, self._timed)

    def _timed(self, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = self._call(*args, **kwargs)
        self.seconds.append(time.perf_counter() - start)
        return result

    def take(self, count: int) -> float:
        """Milliseconds per call over the last `count` calls; forgets all.

        Raises:
            RuntimeError: there were fewer calls.
        """
        last, self.seconds = self.seconds[-count:], []
        if len(last) != count:
            raise RuntimeError(f"expected {count} calls of {self._call}, found {len(last)}")
        return sum(last) * 1e3 / count


class StepClock:
    """Times the parts of every step of an engine that lives in this process."""

    def __init__(self, llm: Any) -> None:
        engine = llm.llm_engine
        scheduler = engine.engine_core.engine_core.scheduler
        worker = engine.model_executor.driver_worker.worker
        backend = worker.model_runner._backend
        self._whole = Stopwatch(engine, "step")
        self._schedule = Stopwatch(scheduler, "schedule")
        self._update = Stopwatch(scheduler, "update_from_output")
        self._execute = Stopwatch(worker, "execute_model")
        self._forward = Stopwatch(backend, "forward")
        self._logits = Stopwatch(backend, "logits")
        self._sample = Stopwatch(worker, "sample_tokens")

    def take(self, count: int) -> Step:
        """Milliseconds per step of each part over the last `count` steps."""
        whole, execute, sampling = (
            watch.take(count) for watch in (self._whole, self._execute, self._sample)
        )
        scheduler = self._schedule.take(count) + self._update.take(count)
        graph = self._forward.take(count) + self._logits.take(count)
        rest = whole - scheduler - execute - sampling
        times = (scheduler, execute - graph, graph, sampling, rest)
        return {**dict(zip(PARTS, times, strict=True)), WHOLE: whole}


def measure(setting: Setting, parts: set[str], rounds: int) -> dict[str, Part]:
    """The part, from its own process; it is the only one of `parts`."""
    side = setting.sides[0]
    work = setting.work(side)
    settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-m", "benchmarks.peers.overhead"]
    printed = run_logged(
        [*program, str(setting.checkpoint), str(rounds)],
        side.environment(work) | settings,
        work,
        work / "overhead.log",
    )
    measured: dict[str, list[Step]] = json.loads(printed.splitlines()[-1])
    part = _report({int(batch): steps for batch, steps in measured.items()})
    return dict.fromkeys(parts, part)


def _report(measured: dict[int, list[Step]]) -> Part:
    batches = list(measured)
    heads = " | ".join(f"batch {batch}: median | lowest" for batch in batches)
    lines = [f"| ms per step | {heads} |", "|---" * (1 + 2 * len(batches)) + "|"]
    for part in (*PARTS, WHOLE):
        values = ([step[part] for step in measured[batch]] for batch in batches)
        lines.append(f"| {part} | " + " | ".join(f"{median(v):.2f} | {min(v):.2f}" for v in values))
        lines[-1] += " |"
    text = f"Goal for a whole step at batch 1: under {GOAL_MS:g} ms.\n\n" + "\n".join(lines)
    groups = tuple(f"batch {batch}" for batch in batches)
    bars = []
    for part in PARTS:
        rows = [[step[part] for step in measured[batch]] for batch in batches]
        bars.append(Bars(part, groups, tuple(map(median, rows)), tuple(map(min, rows))))
    panel = Panel("A decode step without kernels", "ms", bars=tuple(bars))
    return Part(text, (Figure("peers_overhead", "Milliseconds around the kernels", (panel,)),))


def _measure_here(folder: Path, rounds: int) -> dict[int, list[Step]]:
    import vllm_mindspore  # noqa: F401, I001 - first, as users write it
    from vllm import LLM

    from vllm_mindspore.device.kernel_library import kernel_library

    llm = LLM(str(folder), skip_tokenizer_init=True, **OPTIONS)
    clock = StepClock(llm)
    kernel_library().set_noop(True)
    measured: dict[int, list[Step]] = {batch: [] for batch in BATCHES}
    for number in range(-1, rounds):  # the first round is not counted
        for batch in BATCHES:
            generate(llm, batch, PROMPT_TOKENS, 1 + NEW_TOKENS)
            step = clock.take(NEW_TOKENS)
            if number >= 0:
                measured[batch].append(step)
    return measured


if __name__ == "__main__":
    print(json.dumps(_measure_here(Path(sys.argv[1]), int(sys.argv[2]))))
