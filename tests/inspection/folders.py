# SPDX-License-Identifier: Apache-2.0
"""Small folders to inspect: headers are real, values are cheap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, Qwen2Config

from vllm_mindspore.model_executor.models.config import decoder_config
from vllm_mindspore.model_executor.models.layout import layout_of

SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
Stored = dict[str, torch.Tensor]
W8A8: dict[str, tuple[str, torch.dtype]] = {
    "weight": ("NK", torch.int8),
    "deq_scale": ("N", torch.float32),
    "quant_bias": ("N", torch.int32),
    "input_scale": ("1", torch.float32),
    "input_offset": ("1", torch.float32),
}


def qwen2(folder: Path) -> Stored:
    """A config.json with biases, and the float tensors that belong to it."""
    Qwen2Config(**SIZES, architectures=["Qwen2ForCausalLM"]).save_pretrained(folder)
    config = AutoConfig.from_pretrained(folder)
    layout = layout_of(config.model_type, decoder_config(config))
    found = {name: torch.ones(shape) for name, shape in layout.floats.items()}
    for together in layout.linears:
        for linear in together:
            found[f"{linear.name}.weight"] = torch.ones(linear.out_features, linear.in_features)
            if linear.bias:
                found[f"{linear.name}.bias"] = torch.ones(linear.out_features)
    return {name: tensor.to(torch.bfloat16) for name, tensor in found.items()}


def quantized(stored: Stored) -> tuple[Stored, dict[str, str]]:
    """Feed-forward blocks as ModelSlim's W8A8, and the description."""
    found: Stored = {}
    types: dict[str, str] = {}
    for name, tensor in stored.items():
        if ".mlp." not in name:
            found[name], types[name] = tensor, "FLOAT"
            continue
        module = name.removesuffix(".weight")
        sizes = {"N": tensor.shape[0], "K": tensor.shape[1], "1": 1}
        for part, (shape, dtype) in W8A8.items():
            found[f"{module}.{part}"] = torch.ones([sizes[axis] for axis in shape], dtype=dtype)
            types[f"{module}.{part}"] = "W8A8"
    return found, types


def write(folder: Path, stored: Stored, types: dict[str, Any] | None = None) -> Path:
    """The tensors, and the description where there is one."""
    save_file(stored, folder / "model.safetensors")
    if types is not None:
        (folder / "quant_model_description.json").write_text(json.dumps(types))
    return folder


def change_config(folder: Path, **changes: Any) -> None:
    """Fields of config.json replaced."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
