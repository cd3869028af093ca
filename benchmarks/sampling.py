# SPDX-License-Identifier: Apache-2.0
"""The largest logit of each row: torch's argmax beside what the engine uses.

    python -m benchmarks.sampling

Both run alternately on the same logits, on one thread as in a worker.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.shapes import QWEN3_0_6B
from vllm_mindspore.worker.sampler import HostSampler

ROUNDS = 20


def main() -> None:
    """Prints a Markdown table."""
    torch.set_num_threads(1)
    print("| rows | torch ms | engine ms | ratio |\n|---|---|---|---|")
    for rows in (1, 8, 32):
        logits = torch.randn(rows, QWEN3_0_6B["vocab_size"])
        times = [
            (
                milliseconds(torch.argmax, logits, -1),
                milliseconds(HostSampler.greedy_sample, logits),
            )
            for _ in range(ROUNDS)
        ]
        torch_ms, engine_ms = (statistics.median(side) for side in zip(*times, strict=True))
        print(f"| {rows} | {torch_ms:.2f} | {engine_ms:.2f} | {torch_ms / engine_ms:.1f} |")


def milliseconds(function: Callable[..., object], *arguments: object) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    function(*arguments)
    return (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    main()
