# SPDX-License-Identifier: Apache-2.0
"""Engines with bf16 and int8 weights of the Qwen3-0.6B shape, alternately in one process.

    python -m benchmarks.quantized [--threads 2] [--rounds 5]

Milliseconds of a decode step at batch 1 and 8 and of a 512-token prefill, medians; ratios are
medians of the ratios to bf16 within a round. Weights are dummies.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.engine import PREFILL_TOKENS, cpu_name, generate, start_engine, step_ms
from benchmarks.shapes import QWEN3_0_6B, decode_weight_bytes, write_quantized_shape, write_shape

if TYPE_CHECKING:
    from vllm import LLM


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
# Ratios to bf16 that int8 layers are to reach, by head and measurement.
GOALS = {"bf16 head": (1.3, 1.2, 1.3), "int8 head": (1.55, 1.35, 1.3)}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # one process holds all engines
    os.environ["VLLM_MS_NUM_THREADS"] = str(args.threads)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    with tempfile.TemporaryDirectory() as folder:
        sides = start(Path(folder))
    for number in range(-1, args.rounds):  # the first round is not counted
        for name, measured in MEASUREMENTS.items():
            for side in sides if number % 2 else sides[::-1]:
                milliseconds = measured(side.llm)
                if number >= 0:
                    side.times.setdefault(name, []).append(milliseconds)
    print(report(sides))


def start(folder: Path) -> list[Side]:
    """All engines, bf16 first."""
    half = {"layer_bytes": 1}
    sides = [
        Side(
            "bf16",
            start_engine(write_shape(folder / "bf16", QWEN3_0_6B)),
            decode_weight_bytes(QWEN3_0_6B),
        )
    ]
    for kind in ("W8A8", "W8A8_DYNAMIC"):
        made = write_quantized_shape(folder / kind, QWEN3_0_6B, kind)
        num_bytes = decode_weight_bytes(QWEN3_0_6B, **half)
        sides.append(Side(f"{kind}, bf16 head", start_engine(made), num_bytes))
    made = write_quantized_shape(folder / "head", QWEN3_0_6B, "W8A8_DYNAMIC", quantized_head=True)
    num_bytes = decode_weight_bytes(QWEN3_0_6B, **half, head_bytes=1)
    sides.append(Side("W8A8_DYNAMIC, int8 head", start_engine(made), num_bytes))
    return sides


def report(sides: list[Side]) -> str:
    """A Markdown table."""
    from vllm_mindspore.device.kernel_library import kernel_library

    library = kernel_library()
    bandwidth = library.read_bandwidth(1 << 30) / 1e9
    lines = [
        f"Machine: {cpu_name()}, {library.num_threads()} threads, {library.isa_name()} kernels, "
        f"read bandwidth {bandwidth:.1f} GB/s.",
        "",
        "| | weights | median ms | lowest ms | speed over bf16 | goal | |",
        "|---|---|---|---|---|---|---|",
    ]
    base = sides[0]
    for place, name in enumerate(MEASUREMENTS):
        for side in sides:
            lines.append(row(name, side, base, place))
    return "\n".join(lines)


def row(name: str, side: Side, base: Side, place: int) -> str:
    """One side of one measurement."""
    times = side.times[name]
    median = statistics.median(times)
    ratio = statistics.median(
        [mine / its for mine, its in zip(base.times[name], times, strict=True)]
    )
    goal = next((str(g[place]) for head, g in GOALS.items() if side.name.endswith(head)), "")
    remark = ""
    if name.startswith("decode"):
        remark = f"{side.num_bytes:,} bytes at {side.num_bytes / median / 1e6:.1f} GB/s"
    return (
        f"| {name} | {side.name} | {median:.1f} | {min(times):.1f} | {ratio:.2f} | {goal} | "
        f"{remark} |"
    )


if __name__ == "__main__":
    main()
