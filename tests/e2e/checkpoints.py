# SPDX-License-Identifier: Apache-2.0
"""Writes small random Hugging Face checkpoints: the shapes that a loader and a graph must get
right, with weights large enough that greedy choices are not near-ties."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    Ernie4_5Config,
    Glm4Config,
    GlmConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SeedOssConfig,
)

VOCAB_SIZE = 512


@dataclass(frozen=True)
class CheckpointSpec:
    """One random checkpoint."""

    name: str
    config_class: type[PretrainedConfig]
    config: dict[str, Any] = field(default_factory=dict)
    shard_size: str = "5GB"
    repeat_head: bool = False
    """Whether the file of a model with tied embeddings also holds the head, as some published
    ones do."""


SMALL: dict[str, Any] = {
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
        CheckpointSpec(
            "qwen3",
            Qwen3Config,
            {"head_dim": 40, "tie_word_embeddings": True},
            repeat_head=True,
        ),
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
        CheckpointSpec(
            "llama-biases",
            LlamaConfig,
            {
                "attention_bias": True,
                "mlp_bias": True,
                "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
            },
        ),
        CheckpointSpec(
            "mistral",
            MistralConfig,
            {
                "head_dim": 24,
                "sliding_window": None,
                "rope_parameters": {"rope_type": "linear", "rope_theta": 1e6, "factor": 4.0},
            },
        ),
        CheckpointSpec(
            "qwen2",
            Qwen2Config,
            {
                "tie_word_embeddings": True,
                "rope_parameters": {
                    "rope_type": "yarn",
                    "rope_theta": 1e6,
                    "factor": 4.0,
                    "original_max_position_embeddings": 64,
                },
            },
        ),
        CheckpointSpec("glm", GlmConfig, {"head_dim": 32}),
        CheckpointSpec("glm4", Glm4Config, {"head_dim": 16, "num_key_value_heads": 3}),
        CheckpointSpec(
            "ernie4_5",
            Ernie4_5Config,
            {"head_dim": 16, "tie_word_embeddings": True, "use_bias": True},
        ),
        CheckpointSpec("seed_oss", SeedOssConfig, {"head_dim": 32}),
    )
}

# By how much a projection lengthens its input. Queries and keys stay as long as they are: attention
# that is almost a choice of one key would multiply every rounding error before it.
_GAIN, _SCORE_GAIN = 2.0, 1.0
_SCORE_WEIGHTS = ("q_proj.weight", "k_proj.weight")


def randomize(model: torch.nn.Module) -> Any:
    """The model with new weights, large enough that greedy choices are not near-ties."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.normal_(0.0, 0.5)
            elif parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
            else:
                gain = _SCORE_GAIN if name.endswith(_SCORE_WEIGHTS) else _GAIN
                parameter.normal_(0.0, gain / parameter.shape[-1] ** 0.5)
    return model


def write_checkpoint(spec: CheckpointSpec, folder: Path, dtype: torch.dtype) -> Path:
    """Writes the checkpoint without a tokenizer and returns its folder."""
    torch.manual_seed(sum(spec.name.encode()))
    config = spec.config_class(**(SMALL | spec.config))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    randomize(model)
    model.to(dtype).save_pretrained(folder, max_shard_size=spec.shard_size)
    if spec.repeat_head:
        file = folder / "model.safetensors"
        tensors = load_file(file)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, file, {"format": "pt"})
    return folder
