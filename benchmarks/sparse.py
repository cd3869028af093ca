# SPDX-License-Identifier: Apache-2.0
"""Products with compressed int8 weights beside those with plain ones and a plain read, in turns.

    python -m benchmarks.sparse [--seconds 6] [--gigabytes 2] [--rows 12288 --inner 2048]

Either side rotates through as much memory, more than any last-level cache holds: its own bytes, so
what a cache keeps of smaller weights is no advantage. Times are the best of short runs, which
alternate; tables in Markdown, and a plot in docs/images.
"""

from __future__ import annotations

import argparse
import itertools
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ops.tests.native import Native, Tensor, empty, native_path, tensor
from vllm_mindspore.device import sparse_weights
from vllm_mindspore.quantization.ptq import line_plot
from vllm_mindspore.quantization.ptq.line_plot import Axis

ZEROS = (30, 40, 50, 60, 70, 80, 90)
ALLOWED_OVERHEAD = 0.14  # of int8's bytes, above the share of values
PLOT = Path(__file__).resolve().parent.parent / "docs" / "images" / "sparse_speed.svg"
SPEED_GOALS = {50: 1.4, 70: 2.0, 90: 2.6}  # over dense, by percent of zeros
DENSE_GOAL = 0.85  # of a plain read's bandwidth
AVX2_GOAL = 0.7  # over dense on AVX2, at 50 % zeros
VALIDATION_GOAL = 0.5  # GB/s
RUN = 8  # calls timed together

Codes = npt.NDArray[np.int8]
Call = Callable[[], None]


@dataclass(frozen=True)
class Setting:
    """What every comparison shares."""

    library: Native
    outputs: int
    inner: int
    footprint: int
    """Bytes that either side rotates through."""
    seconds: float
    """Of each comparison."""
    base: Codes
    """A weight without zeros."""
    plain: list[Tensor]
    """Copies of it that fill the footprint."""

    def sparse(self, percent: int) -> Codes:
        """The same with zeros in random places."""
        rng = np.random.default_rng(percent)
        return np.where(rng.random(self.base.shape) * 100 < percent, np.int8(0), self.base)


@dataclass(frozen=True)
class Side:
    """Calls of one product, one after the other over copies of its weight."""

    calls: Iterator[Call]
    num_bytes: int
    """Read by one call."""


def setting(options: argparse.Namespace) -> Setting:
    """As the command line asks."""
    rng = np.random.default_rng(0)
    base = rng.integers(-127, 128, (options.rows, options.inner), np.int8)
    base[base == 0] = 1
    footprint = int(options.gigabytes * 1e9)
    library = Native(native_path())
    return Setting(
        *(library, options.rows, options.inner, footprint, options.seconds, base),
        copies(base, footprint),
    )


def copies(array: Codes, footprint: int) -> list[Tensor]:
    """As many as fill the footprint."""
    return [Tensor(array.copy(), "int8") for _ in range(max(1, -(-footprint // array.nbytes)))]


def side(given: Setting, name: str, rows: int, weights: Sequence[Tensor], index: Codes) -> Side:
    """Of plain weights, or of streams with their index."""
    rng = np.random.default_rng(1)
    x = Tensor(rng.integers(-128, 128, (rows, given.inner), np.int8), "int8")
    scale = tensor(np.full(given.outputs, 1e-4), "float32")
    y = empty((rows, given.outputs), "float16")
    rest: list[Tensor | None] = [scale, None, None]
    if name == "sparse_linear":
        rest.append(Tensor(index, "int8"))
    made = [given.library.prepared(name, x, None, 1, [weight, *rest], y) for weight in weights]
    return Side(itertools.cycle(made), weights[0].array.nbytes + index.nbytes)


def reading(given: Setting) -> Side:
    """Of the plain weights, by as many threads as products have: half the footprint ahead of the
    plain product, so that no cache holds for one what the other has read."""
    threads = given.library.control.num_threads()
    pool = ThreadPoolExecutor(threads)

    def read(weight: Tensor) -> Call:
        parts = np.array_split(weight.array.reshape(-1).view(np.uint64), threads)

        def call() -> None:
            for _ in pool.map(np.add.reduce, parts):
                pass

        return call

    half = len(given.plain) // 2
    made = [read(weight) for weight in (*given.plain[half:], *given.plain[:half])]
    return Side(itertools.cycle(made), given.base.nbytes)


def best_times(sides: Sequence[Side], seconds: float) -> list[float]:
    """Seconds of a call of each side."""
    best, end = [float("inf")] * len(sides), time.perf_counter() + seconds
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        for place, one in enumerate(sides):
            calls = list(itertools.islice(one.calls, RUN))
            start = time.perf_counter()
            for call in calls:
                call()
            best[place] = min(best[place], (time.perf_counter() - start) / RUN)
        rounds += 1
    return best


def compare(
    given: Setting, percent: int, rows: Sequence[int], beside: Sequence[Side] = ()
) -> Iterator[tuple[Side, list[float]]]:
    """For each number of rows the compressed side, and seconds of those beside, of the plain and of
    that one."""
    stream, index = sparse_weights.encode(given.sparse(percent))
    streams = copies(stream, given.footprint)
    for count in rows:
        dense = side(given, "int8_linear", count, given.plain, index[:0])
        compressed = side(given, "sparse_linear", count, streams, index)
        yield compressed, best_times([*beside, dense, compressed], given.seconds)


def decoding(given: Setting) -> dict[int, float]:
    """Prints one row of x by share of zeros; how many times as fast each is."""
    size, read = given.base.nbytes, reading(given)
    print(
        "| zeros | share of int8's bytes | at most | plain read GB/s | dense us | GB/s "
        "| of bandwidth | goal | compressed us | GB/s | of bandwidth | times as fast | goal |"
    )
    print("|---" * 13 + "|")
    found = {}
    for percent in ZEROS:
        ((compressed, (plain, dense, sparse)),) = compare(given, percent, [1], [read])
        share, limit = compressed.num_bytes / size, read.num_bytes / plain
        rates = size / dense, compressed.num_bytes / sparse
        found[percent] = dense / sparse
        print(
            f"| {percent}% | {share:.3f} | {1 - percent / 100 + ALLOWED_OVERHEAD:.2f} "
            f"| {limit / 1e9:.1f} "
            f"| {dense * 1e6:.0f} | {rates[0] / 1e9:.1f} | {rates[0] / limit:.2f} | {DENSE_GOAL} "
            f"| {sparse * 1e6:.0f} | {rates[1] / 1e9:.1f} | {rates[1] / limit:.2f} "
            f"| {dense / sparse:.2f} | {SPEED_GOALS.get(percent, '')} |",
            flush=True,
        )
    return found


def batches(given: Setting) -> None:
    """Prints more rows, at two shares of zeros."""
    print("\n| zeros | rows | dense us | compressed us | times as fast |\n|---|---|---|---|---|")
    counts = (2, 4, 8, 16, 32, 64, 512)
    for percent in (50, 70):
        for rows, (_, (dense, sparse)) in zip(counts, compare(given, percent, counts), strict=True):
            print(
                f"| {percent}% | {rows} | {dense * 1e6:.0f} | {sparse * 1e6:.0f} "
                f"| {dense / sparse:.2f} |",
                flush=True,
            )


def other_sets(given: Setting) -> None:
    """Prints one row at 50 % zeros on each instruction set, VBMI2 switched off as well."""
    print("\n| instruction set | dense us | compressed us | times as fast | goal |")
    print("|---" * 5 + "|")
    best = given.library.control.isa_name()
    for name in ("avx2", "avx512", "avx512_bf16", "amx"):
        if not given.library.control.isa_supported(name):
            continue
        given.library.control.set_isa(name)
        for vbmi2 in (1,) if name == "avx2" else (1, 0):
            given.library.functions.vmo_set_vbmi2(vbmi2)
            ((_, (dense, sparse)),) = compare(given, 50, [1])
            label = name if vbmi2 else f"{name} without VBMI2"
            goal = AVX2_GOAL if name == "avx2" else ""
            print(
                f"| {label} | {dense * 1e6:.0f} | {sparse * 1e6:.0f} | {dense / sparse:.2f} "
                f"| {goal} |",
                flush=True,
            )
        given.library.functions.vmo_set_vbmi2(1)
    given.library.control.set_isa(best)


def codec(given: Setting) -> None:
    """Prints what coding and full validation take."""
    weight = given.sparse(50)
    stream, index = sparse_weights.encode(weight)
    shape = weight.shape
    made = [
        ("encode", weight.nbytes, lambda: sparse_weights.encode(weight)),
        ("validate", stream.nbytes, lambda: sparse_weights.validate(stream, index, *shape)),
        ("validate and checksum", stream.nbytes, lambda: _as_loaded(stream, index, shape)),
        ("validate and decode", stream.nbytes,
         lambda: sparse_weights.decode(stream, index, *shape)),
    ]  # fmt: skip
    print("\n| 50% zeros | GB/s | goal |\n|---|---|---|")
    for name, num_bytes, call in made:
        (best,) = best_times([Side(itertools.repeat(call), num_bytes)], given.seconds)
        what = "of int8 weights" if name == "encode" else "of compressed bytes"
        goal = VALIDATION_GOAL if name == "validate and checksum" else ""
        print(f"| {name} | {num_bytes / best / 1e9:.2f} {what} | {goal} |", flush=True)


def _as_loaded(stream: Codes, index: Codes, shape: tuple[int, int]) -> None:
    """All that a load checks of a stream."""
    sparse_weights.validate(stream, index, *shape)
    zlib.crc32(stream.data)


def write_plot(found: dict[int, float], file: Path) -> None:
    """Speed over zeros, beside what the bytes allow."""
    lines = {
        "measured": [(float(percent), ratio) for percent, ratio in found.items()],
        "bytes allow": [(float(percent), 1 / (1.126 - percent / 100)) for percent in found],
    }
    top = max(ratio for points in lines.values() for _, ratio in points)
    axes = Axis(0, float(int(top) + 1), 1, "times"), Axis(min(found), max(found), 10, "% zeros")
    file.write_text(line_plot.svg(lines, *axes))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints all tables and writes the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="of each comparison")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="either side's footprint")
    parser.add_argument("--rows", type=int, default=12288, help="outputs of the weight")
    parser.add_argument("--inner", type=int, default=2048, help="inputs of the weight")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--plot", type=Path, default=PLOT)
    options = parser.parse_args(arguments)
    given = setting(options)
    control = given.library.control
    if options.threads:
        control.set_num_threads(options.threads)
    print(
        f"{control.isa_name()}, {control.num_threads()} threads, weight [{given.outputs}, "
        f"{given.inner}], {given.footprint / 1e9:.1f} GB rotated on every side, a plain read's "
        "included\n"
    )
    found = decoding(given)
    batches(given)
    other_sets(given)
    codec(given)
    write_plot(found, options.plot)
    print(f"\n![How many times as fast, by share of zeros](images/{options.plot.name})")


if __name__ == "__main__":
    main()
