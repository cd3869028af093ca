# SPDX-License-Identifier: Apache-2.0
"""Writes random LoRA adapters as PEFT does, for any model of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def linear_shapes(model: torch.nn.Module, targets: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of the model's linear layers whose name ends with one of `targets`."""
    return {
        name: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in targets
    }


def write_adapter(
    folder: Path,
    shapes: dict[str, tuple[int, int]],
    *,
    rank: int = 4,
    alpha: int = 8,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """A folder with adapter_config.json and adapter_model.safetensors (fp32)."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (inputs, outputs) in shapes.items():
        key = f"base_model.model.{name}.lora"
        a = torch.randn(rank, inputs, generator=generator) / inputs**0.5
        b = torch.randn(outputs, rank, generator=generator) / rank**0.5
        tensors |= {f"{key}_A.weight": a, f"{key}_B.weight": b}
    save_file(tensors, folder / "adapter_model.safetensors")
    targets = sorted({name.rpartition(".")[2] for name in shapes})
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": targets}
    (folder / "adapter_config.json").write_text(json.dumps(config | settings))
    return folder


@torch.no_grad()
def merge_adapter(model: torch.nn.Module, folder: Path, scaling: float) -> torch.nn.Module:
    """The model with the adapter's products added to its weights: the reference."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    for name, module in model.named_modules():
        key = f"base_model.model.{name}.lora"
        if f"{key}_A.weight" in tensors:
            delta = tensors[f"{key}_B.weight"] @ tensors[f"{key}_A.weight"]
            module.weight += scaling * delta
    return model
