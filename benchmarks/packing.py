# SPDX-License-Identifier: Apache-2.0
"""Products and attention of many rows: dot products beside packed rows, alternately.

    python -m benchmarks.packing

Milliseconds of the four bfloat16 products of a layer of the Qwen3-0.6B shape, of one with weights
of codes (int8, and int4 in groups of 128), and of its attention to a prompt, by the number of rows,
on the best instruction set of this CPU. Where both columns are equal this number of rows is not
packed.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable

import numpy as np

from benchmarks.kernels import Case, attention, projections, weight_only
from ops.tests.native import Native, native_path

ROWS = (8, 13, 16, 20, 21, 24, 32, 48, 128, 512)
CODES = ((8, 0), (4, 128))
CODE_ROWS = (4, 8, 16, 64, 512)
PROMPTS = (16, 128, 512, 2048)
ROUNDS = 9


def main() -> None:
    """Prints a Markdown table."""
    library = Native(native_path())
    rng = np.random.default_rng(0)
    print(f"{library.control.isa_name()}, {library.control.num_threads()} threads\n")
    print("| | rows | dot products ms | packed ms | ratio |\n|---|---|---|---|---|")
    for rows in ROWS:
        show(f"products | {rows}", library, projections(library, rng, "bfloat16", rows))
    for dtype in ("bfloat16", "float16"):
        for (bits, group), rows in itertools.product(CODES, CODE_ROWS):
            case = weight_only(library, rng, dtype, bits, group, rows)
            show(f"int{bits} weights, {dtype} | {rows}", library, [case])
        for tokens in PROMPTS:
            case = attention(library, rng, dtype, 1, tokens, tokens)
            show(f"attention, {dtype} | {tokens}", library, [case])


def show(name: str, library: Native, cases: Iterable[Case]) -> None:
    """A row of the table: all cases together."""
    dots, packed = both_ways(library, cases)
    print(f"| {name} | {dots * 1e3:.2f} | {packed * 1e3:.2f} | {dots / packed:.2f} |", flush=True)


def both_ways(library: Native, cases: Iterable[Case]) -> tuple[float, float]:
    """Seconds of the cases with dot products and as they are chosen, sums of medians."""
    dots = packed = 0.0
    for case in cases:
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            for side, invariant in zip(times, (True, False), strict=True):
                library.control.set_batch_invariant(invariant)
                side.append(seconds(next(case.calls)))
        dots, packed = dots + statistics.median(times[0]), packed + statistics.median(times[1])
    return dots, packed


def seconds(call: Callable[[], None]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
