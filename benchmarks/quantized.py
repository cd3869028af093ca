# SPDX-License-Identifier: Apache-2.0
"""Engines with bf16 and int8 weights of the Qwen3-0.6B shape, alternately in one process.

    python -m benchmarks.quantized [--threads 2] [--rounds 5]

Milliseconds of a decode step at batch 1 and 8 and of a 512-token prefill, medians; ratios are
medians of the ratios to bf16 within a round. Weights are dummies.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks.alternately import Side, measure, report
from benchmarks.engine import start_engine
from benchmarks.shapes import QWEN3_0_6B, decode_weight_bytes, write_quantized_shape, write_shape

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
    measure(sides, args.rounds)
    print(report(sides, GOALS))


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


if __name__ == "__main__":
    main()
