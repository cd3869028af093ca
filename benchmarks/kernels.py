# SPDX-License-Identifier: Apache-2.0
"""Speed of the CPU kernels at the shapes of Qwen3-0.6B, beside what the machine can do.

Usage: python benchmarks/kernels.py [--isa NAME ...] [--dtype bfloat16] [--threads N] [--seconds S]

Weights rotate through more memory than the last-level cache holds, so products with few rows are
measured against memory bandwidth. Times are the best of the repetitions: on a shared machine other
work can only add to them.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ops.tests.native import DENSE, Native, Tensor, empty, native_path, tensor
from vllm_mindspore.device.kernel_library import ISA_NAMES

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, VOCABULARY = 1024, 16, 8, 128, 3072, 151936
BLOCK = 64
NONE = (None, None)  # offsets and biases
# Bytes of weight copies that products rotate through.
ROTATION = 256 << 20


@dataclass(frozen=True)
class Case:
    """One kernel at one shape: `calls` yields functions that each run it once."""

    name: str
    calls: Iterator[Callable[[], None]]
    num_bytes: float  # read from memory per call
    flops: float


def random(rng: np.random.Generator, dtype: str, *shape: int) -> Tensor:
    """Small values; large tensors repeat a block, which is quicker to fill."""
    count = int(np.prod(shape))
    block = tensor(rng.standard_normal(min(count, 1 << 20)) * 0.1, dtype).array
    return Tensor(np.resize(block, shape), dtype)


def linear(
    library: Native,
    rng: np.random.Generator,
    dtype: str,
    name: str,
    rows: int,
    cols: int,
    inner: int,
) -> Case:
    """x[rows, inner] . w[cols, inner]^T."""
    size = cols * inner * (4 if dtype == "float32" else 2)
    weights = [random(rng, dtype, cols, inner) for _ in range(max(1, ROTATION // size))]
    x, y = random(rng, dtype, rows, inner), empty((rows, cols), dtype)
    calls = (
        (lambda w=w: library.call("linear", x, 1, [w], None, y)) for w in itertools.cycle(weights)
    )
    return Case(f"{name} {rows}x{cols}x{inner}", calls, size, 2.0 * rows * cols * inner)


def weight_only(
    library: Native, rng: np.random.Generator, dtype: str, bits: int, group: int, rows: int
) -> Case:
    """x . w^T of int8 or int4 codes in groups (0: one per output), of gate and up together."""
    cols, width = 2 * INTERMEDIATE, HIDDEN * bits // 8
    scale = random(rng, "float32", cols, HIDDEN // group if group else 1)
    size = cols * width + scale.array.nbytes
    codes = [
        Tensor(np.resize(rng.integers(-128, 128, 1 << 20, np.int8), (cols, width)), "int8")
        for _ in range(ROTATION // size)
    ]
    x, y = random(rng, dtype, rows, HIDDEN), empty((rows, cols), dtype)
    calls = (
        (lambda w=w: library.call("weight_only_linear", x, bits, group, 1, [w, scale, *NONE], y))
        for w in itertools.cycle(codes)
    )
    return Case(f"int{bits} weights {rows} rows", calls, size, 2.0 * rows * cols * HIDDEN)


def gate_up(library: Native, rng: np.random.Generator, dtype: str, rows: int) -> Case:
    """The fused gate and up projections with SwiGLU."""
    size = 2 * INTERMEDIATE * HIDDEN * (4 if dtype == "float32" else 2)
    pairs = [
        (random(rng, dtype, INTERMEDIATE, HIDDEN), random(rng, dtype, INTERMEDIATE, HIDDEN))
        for _ in range(ROTATION // size)
    ]
    x, y = random(rng, dtype, rows, HIDDEN), empty((rows, INTERMEDIATE), dtype)
    calls = (
        (lambda g=g, u=u: library.call("gate_up_swiglu", x, g, u, y))
        for g, u in itertools.cycle(pairs)
    )
    return Case(f"gate_up_swiglu {rows} rows", calls, size, 4.0 * rows * INTERMEDIATE * HIDDEN)


def attention(
    library: Native, rng: np.random.Generator, dtype: str, batch: int, queries: int, context: int
) -> Case:
    """Paged attention of `batch` sequences, `queries` new tokens each."""
    blocks = -(-context // BLOCK)
    caches = [random(rng, dtype, batch * blocks, BLOCK, KV_HEADS, HEAD_DIM) for _ in range(2)]
    query = random(rng, dtype, batch * queries, HEADS * HEAD_DIM)
    out = empty(query.array.shape, dtype)
    tables = Tensor(np.arange(batch * blocks, dtype=np.int32).reshape(batch, blocks), "int32")
    lengths = [Tensor(np.full(batch, n, np.int32), "int32") for n in (context, queries)]
    call = lambda: library.call(  # noqa: E731
        "paged_attention", query, *caches, tables, *lengths, HEADS, KV_HEADS, HEAD_DIM**-0.5, out
    )
    visible = queries * (context - queries) + queries * (queries + 1) / 2
    flops = 4.0 * batch * visible * HEADS * HEAD_DIM
    num_bytes = 2.0 * batch * context * KV_HEADS * HEAD_DIM * query.array.itemsize
    return Case(
        f"paged_attention {batch}x{queries} of {context}", itertools.repeat(call), num_bytes, flops
    )


def int8_attention(
    library: Native, rng: np.random.Generator, dtype: str, batch: int, queries: int, context: int
) -> Case:
    """The same over int8 caches, with the codes of the new tokens written first."""
    blocks = -(-context // BLOCK)
    shape = (batch * blocks, BLOCK, KV_HEADS, HEAD_DIM)
    caches = [Tensor(rng.integers(-128, 128, shape, np.int8), "int8") for _ in range(2)]
    tokens, width = batch * queries, HEADS * HEAD_DIM
    qkv = random(rng, dtype, tokens, width + 2 * KV_HEADS * HEAD_DIM)
    out, gamma = empty((tokens, width), dtype), random(rng, dtype, HEAD_DIM)
    angles = tensor(np.ones((tokens, 0)), "float32")
    ends = (np.arange(batch)[:, None] * blocks * BLOCK + context - queries) + np.arange(queries)
    integers = (
        *(ends.reshape(-1), np.arange(batch * blocks).reshape(batch, blocks)),
        *(np.full(batch, context), np.full(batch, queries)),
    )
    tables = [Tensor(values.astype(np.int32), "int32") for values in integers]
    flags = np.array([HEADS, KV_HEADS, HEAD_DIM, 0, 0, 0, 0, 4], np.int32)
    floats = tensor([HEAD_DIM**-0.5, 0.0], "float32")
    scales = tensor(np.full((4, KV_HEADS * HEAD_DIM), 0.02), "float32")
    inputs = [qkv, gamma, gamma, angles, angles, *tables, *caches, Tensor(flags, "int32"), floats]
    call = lambda: library.call("attention_block", [*inputs, scales, out], 14)  # noqa: E731
    visible = queries * (context - queries) + queries * (queries + 1) / 2
    flops = 4.0 * batch * visible * HEADS * HEAD_DIM
    num_bytes = 2.0 * batch * context * KV_HEADS * HEAD_DIM
    return Case(
        f"int8 attention {batch}x{queries} of {context}", itertools.repeat(call), num_bytes, flops
    )


def norm(library: Native, rng: np.random.Generator, dtype: str, rows: int) -> Case:
    """AddRmsNorm of hidden rows."""
    x, residual, y, total = (random(rng, dtype, rows, HIDDEN) for _ in range(4))
    gamma = random(rng, dtype, HIDDEN)
    call = lambda: library.call("add_rms_norm", x, residual, gamma, 1e-6, y, None, total)  # noqa: E731
    return Case(f"add_rms_norm {rows} rows", itertools.repeat(call), 4.0 * x.array.nbytes, 0.0)


def projections(library: Native, rng: np.random.Generator, dtype: str, rows: int) -> Iterator[Case]:
    """The matrix products of a layer, one by one to keep one set of weights in memory."""
    query_width, kv_width = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    yield linear(library, rng, dtype, "qkv", rows, query_width + 2 * kv_width, HIDDEN)
    yield linear(library, rng, dtype, "o_proj", rows, HIDDEN, query_width)
    yield gate_up(library, rng, dtype, rows)
    yield linear(library, rng, dtype, "down_proj", rows, HIDDEN, INTERMEDIATE)


def cases(library: Native, dtype: str) -> Iterator[Case]:
    """All kernels and shapes, one by one."""
    rng = np.random.default_rng(0)
    for rows in (1, 8, 32, 512):
        yield from projections(library, rng, dtype, rows)
        yield norm(library, rng, dtype, rows)
        if dtype != "float32":
            yield weight_only(library, rng, dtype, 8, 0, rows)
            yield weight_only(library, rng, dtype, 4, 128, rows)
    for rows in (1, 8, 32):
        yield linear(library, rng, dtype, "lm_head", rows, VOCABULARY, HIDDEN)
    for kind in (attention, int8_attention):
        yield kind(library, rng, dtype, 1, 1, 1024)
        yield kind(library, rng, dtype, 8, 1, 1024)
        yield kind(library, rng, dtype, 32, 1, 1024)
        yield kind(library, rng, dtype, 1, 512, 512)
        yield kind(library, rng, dtype, 1, 16, 4096)


def best_time(calls: Iterator[Callable[[], None]], seconds: float) -> float:
    """Shortest of the calls made in that time, at least three."""
    next(calls)()
    best, end = float("inf"), time.perf_counter() + seconds
    for count, call in enumerate(calls):
        start = time.perf_counter()
        call()
        stop = time.perf_counter()
        best = min(best, stop - start)
        if stop > end and count >= 2:
            return best
    return best


def report(library: Native, isa: str, dtype: str, seconds: float) -> None:
    """Prints one table."""
    library.control.set_isa(isa)
    bandwidth = max(library.control.read_bandwidth(1 << 29) for _ in range(3))
    peak = max(library.control.peak(dtype) for _ in range(5))
    print(
        f"\n{isa}, {dtype}, {library.control.num_threads()} threads: read bandwidth "
        f"{bandwidth / 1e9:.1f} GB/s, multiply-add peak {peak / 1e9:.0f} GFLOP/s"
    )
    print(f"{'kernel':<32}{'us':>12}{'GB/s':>9}{'of bw':>8}{'GFLOP/s':>10}{'of peak':>9}")
    for case in cases(library, dtype):
        best = best_time(case.calls, seconds)
        rate, flops = case.num_bytes / best, case.flops / best
        print(
            f"{case.name:<32}{best * 1e6:>12.1f}{rate / 1e9:>9.1f}{rate / bandwidth:>8.0%}"
            f"{flops / 1e9:>10.1f}{flops / peak:>9.0%}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--isa", nargs="*", choices=ISA_NAMES, help="default: all of this CPU")
    parser.add_argument("--dtype", nargs="*", choices=DENSE, default=["bfloat16"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seconds", type=float, default=0.3, help="per kernel and shape")
    options = parser.parse_args()
    library = Native(native_path())
    if options.threads:
        library.control.set_num_threads(options.threads)
    for isa in options.isa or [n for n in ISA_NAMES if library.control.isa_supported(n)]:
        for dtype in options.dtype:
            report(library, isa, dtype, options.seconds)


if __name__ == "__main__":
    main()
