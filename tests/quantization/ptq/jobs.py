# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are made the way the command makes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from vllm_mindspore.quantization.description import Tool
from vllm_mindspore.quantization.ptq import engine, output_folder
from vllm_mindspore.quantization.ptq.float_checkpoint import FloatCheckpoint
from vllm_mindspore.quantization.ptq.job import Job
from vllm_mindspore.quantization.ptq.policy import Choice, Policy, Suppression, policy, resolve
from vllm_mindspore.quantization.ptq.sparsity import Sparsity

SAMPLES = [np.random.default_rng(seed).integers(1, 500, 30).tolist() for seed in range(4)]


def make_job(
    folder: Path,
    kind: str,
    method: Suppression,
    tool: Tool = Tool.GOLDEN_STICK,
    *,
    head: bool = False,
    sparsity: Sparsity | None = None,
    int8_cache: bool = False,
    samples: Sequence[Sequence[int]] = SAMPLES,
    **patterns: Policy,
) -> Job:
    """All layers alike, but for those with these last names."""
    checkpoint = FloatCheckpoint(folder)
    by_pattern = {f".*{name}": chosen for name, chosen in patterns.items()}
    skip = [] if head else ["lm_head"]
    default = policy(kind, method, sparsity=sparsity)
    choice = Choice(default, by_pattern, skip, head=head, int8_cache=int8_cache)
    return Job(checkpoint, resolve(checkpoint.config, choice), samples, tool, int8_cache)


def make(job: Job, folder: Path) -> dict[str, torch.Tensor]:
    """Makes the checkpoint; returns its tensors."""
    work = output_folder.open_work(job, folder)
    engine.run(job, work, lambda part: None)
    assert not folder.exists()
    output_folder.write(job, work, {"scheme": "x"}, {"source": "y"}, folder, work.folder)
    work.close()
    output_folder.remove_work(folder)
    found: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            found |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    return found
