# SPDX-License-Identifier: Apache-2.0
"""A norm and the quantization behind it, one after the other and as one operation, alternately.

    python -m benchmarks.norm_codes

Microseconds of the rows of a layer of the Qwen3-0.6B shape in bfloat16, medians; the ratio is the
median of the ratios of a round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks.kernels import HIDDEN
from ops.tests.native import Native, Tensor, empty, native_path, tensor

ROWS = (1, 8, 512)
ROUNDS, CALLS = 41, 20
DIVIDE, PER_TOKEN = 0, 2


def main() -> None:
    """Prints a Markdown table."""
    library = Native(native_path())
    print(f"{library.control.isa_name()}, {library.control.num_threads()} threads\n")
    print("| rows | scales | apart us | one operation us | ratio |\n|---|---|---|---|---|")
    for rows in ROWS:
        for kind, name in ((DIVIDE, "static"), (PER_TOKEN, "per token")):
            apart, joined = calls(library, rows, kind)
            times = [(seconds(apart), seconds(joined)) for _ in range(ROUNDS)]
            first, second = (statistics.median(side) * 1e6 for side in zip(*times, strict=True))
            ratio = statistics.median(a / b for a, b in times)
            print(f"| {rows} | {name} | {first:.1f} | {second:.1f} | {ratio:.2f} |", flush=True)


def calls(library: Native, rows: int, kind: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Both ways over the same tensors."""
    rng = np.random.default_rng(0)
    x, residual = (tensor(rng.standard_normal((rows, HIDDEN)), "bfloat16") for _ in range(2))
    gamma = tensor(rng.standard_normal(HIDDEN), "bfloat16")
    static = kind == DIVIDE
    scale = tensor(rng.uniform(0.01, 0.02, HIDDEN), "float32")
    offset = tensor(rng.integers(-9, 9, HIDDEN), "float32") if static else None
    y, total = (empty((rows, HIDDEN), "bfloat16") for _ in range(2))
    codes = Tensor(np.zeros((rows, HIDDEN), np.int8), "int8")
    found = None if static else empty((rows,), "float32")
    norm = library.prepared("add_rms_norm", x, residual, gamma, 1e-6, y, None, total)
    quantize = library.prepared("quantize", y, kind, scale, offset, codes, found)
    scales = (kind, scale, offset, codes, found)
    joined = library.prepared("norm_codes", x, residual, gamma, 1e-6, *scales, total)

    def apart() -> None:
        norm()
        quantize()

    return apart, joined


def seconds(call: Callable[[], None]) -> float:
    """Of one call, the mean of some."""
    call()
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - start) / CALLS


if __name__ == "__main__":
    main()
