# SPDX-License-Identifier: Apache-2.0
"""Part `quantized`: the same int8 checkpoint on both sides."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.peers.checkpoint import ready_int8_checkpoint
from benchmarks.peers.report import Part, table
from benchmarks.peers.setting import Setting
from benchmarks.peers.speed import compare
from benchmarks.shapes import QWEN3_0_6B, decode_weight_bytes

# The speed-up the project wants.
GOALS = {"batch 1": "1.1", "batch 8": "1.1", "prefill": "0.8"}


def measure(setting: Setting, parts: set[str], rounds: int) -> dict[str, Part]:
    """The part `quantized`."""
    folder = ready_int8_checkpoint(setting.build / "checkpoint-int8", QWEN3_0_6B)
    read = decode_weight_bytes(QWEN3_0_6B, layer_bytes=1)
    pairs, text = compare(replace(setting, checkpoint=folder), GOALS, read, rounds)
    bound = f"A step reads {read:,} bytes of weights. "
    return {"quantized": Part(f"{bound}{text}\n\n{table(list(pairs.values()))}")}
