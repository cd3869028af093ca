# SPDX-License-Identifier: Apache-2.0
"""Writes small random Hugging Face checkpoints: the shapes that a loader and a graph must get
right, with weights large enough that greedy choices are not near-ties."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen3Config

VOCAB_SIZE = 512


@dataclass(frozen=True)
class CheckpointSpec:
    """One random checkpoint."""

    name: str
    config_class: type[PretrainedConfig]
    config: dict[str, Any] = field(default_factory=dict)
    shard_size: str = "5GB"


_SMALL: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 96,
    "intermediate_size": 200,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-5,
}

SPECS = {
    spec.name: spec
    for spec in (
        CheckpointSpec("qwen3", Qwen3Config, {"head_dim": 40, "tie_word_embeddings": True}),
        CheckpointSpec(
            "qwen3-untied-sharded",
            Qwen3Config,
            {"head_dim": 16, "num_key_value_heads": 6, "tie_word_embeddings": False},
            shard_size="200KB",
        ),
        CheckpointSpec("llama", LlamaConfig, {"tie_word_embeddings": False}),
        CheckpointSpec(
            "llama3-rope",
            LlamaConfig,
            {
                "head_dim": 32,
                "num_key_value_heads": 1,
                "tie_word_embeddings": True,
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 500000.0,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 128,
                },
            },
        ),
    )
}


def write_checkpoint(spec: CheckpointSpec, folder: Path, dtype: torch.dtype) -> Path:
    """Writes the checkpoint without a tokenizer and returns its folder."""
    torch.manual_seed(sum(spec.name.encode()))
    config = spec.config_class(**(_SMALL | spec.config))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0.0, 2.0 / parameter.shape[-1] ** 0.5)
    model.to(dtype).save_pretrained(folder, max_shard_size=spec.shard_size)
    return folder
