# SPDX-License-Identifier: Apache-2.0
"""Several engines in one process that take turns: what they take, and ratios within a round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.engine import PREFILL_TOKENS, cpu_name, generate, step_ms

if TYPE_CHECKING:
    from vllm import LLM

Goals = Mapping[str, Sequence[float | None]]
"""End of a side's name -> the speed over the first side that each measurement is to reach."""


@dataclass
class Side:
    """One engine and its times.

    Attributes:
        name: as the table calls it.
        llm: the engine.
        num_bytes: of weights that a decode step reads.
        times: milliseconds of each round, by measurement.
    """

    name: str
    llm: LLM
    num_bytes: int
    times: dict[str, list[float]] = field(default_factory=dict)


MEASUREMENTS: dict[str, Callable[[LLM], float]] = {
    "decode, batch 1": lambda llm: step_ms(llm, 1),
    "decode, batch 8": lambda llm: step_ms(llm, 8),
    f"prefill, {PREFILL_TOKENS} tokens": lambda llm: generate(llm, 1, PREFILL_TOKENS, 1) * 1e3,
}


def measure(sides: list[Side], rounds: int) -> None:
    """Runs all measurements of all sides in turn, in alternating order."""
    for number in range(-1, rounds):  # the first round is not counted
        for name, measured in MEASUREMENTS.items():
            for side in sides if number % 2 else sides[::-1]:
                milliseconds = measured(side.llm)
                if number >= 0:
                    side.times.setdefault(name, []).append(milliseconds)


def report(sides: list[Side], goals: Goals) -> str:
    """The machine and a Markdown table."""
    from vllm_mindspore.device.kernel_library import kernel_library

    library = kernel_library()
    bandwidth = library.read_bandwidth(1 << 30) / 1e9
    base = sides[0]
    lines = [
        f"Machine: {cpu_name()}, {library.num_threads()} threads, {library.isa_name()} kernels, "
        f"read bandwidth {bandwidth:.1f} GB/s.",
        "",
        f"| | weights | median ms | lowest ms | speed over {base.name} | goal | |",
        "|---|---|---|---|---|---|---|",
    ]
    for place, name in enumerate(MEASUREMENTS):
        lines += [_row(name, side, base, _goal(goals, side, place)) for side in sides]
    return "\n".join(lines)


def _goal(goals: Goals, side: Side, place: int) -> str:
    found = (goal[place] for end, goal in goals.items() if side.name.endswith(end))
    goal = next(found, None)
    return "" if goal is None else str(goal)


def speed(side: Side, base: Side, measurement: str) -> float:
    """How many times as fast as `base`: the median of the ratios within a round."""
    times = zip(base.times[measurement], side.times[measurement], strict=True)
    return statistics.median([its / mine for its, mine in times])


def _row(name: str, side: Side, base: Side, goal: str) -> str:
    times = side.times[name]
    median = statistics.median(times)
    remark = ""
    if name.startswith("decode"):
        remark = f"{side.num_bytes:,} bytes at {side.num_bytes / median / 1e6:.1f} GB/s"
    return (
        f"| {name} | {side.name} | {median:.1f} | {min(times):.1f} | "
        f"{speed(side, base, name):.2f} | {goal} | "
        f"{remark} |"
    )
