# SPDX-License-Identifier: Apache-2.0
"""Model folders without weights: a config.json of a known shape, to run with dummy weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

QWEN3_0_6B: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "hidden_act": "silu",
    "attention_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 2,
}


def write_shape(folder: Path, config: dict[str, Any]) -> Path:
    """Writes config.json into `folder` and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    return folder


LINEARS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)
HEAD = "lm_head"


def write_quantized_shape(
    folder: Path, config: dict[str, Any], kind: str, *, quantized_head: bool = False
) -> Path:
    """The same, with a description that gives every linear layer the type `kind`; the head too if
    asked, which is then no longer the embeddings."""
    write_shape(folder, config | {"tie_word_embeddings": not quantized_head})
    layers = range(config["num_hidden_layers"])
    types = {f"model.layers.{i}.{name}.weight": kind for i in layers for name in LINEARS}
    if quantized_head:
        types[f"{HEAD}.weight"] = kind
    else:
        types["model.embed_tokens.weight"] = "FLOAT"
    (folder / "quantization_description.json").write_text(json.dumps(types))
    return folder


def decode_weight_bytes(
    config: dict[str, Any], *, layer_bytes: int = 2, head_bytes: int = 2
) -> int:
    """Bytes of weights that one decode step reads, all layers and the head, given those of one
    element of each."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    attention = (2 * heads + 2 * kv_heads) * config["head_dim"] * hidden
    layers = config["num_hidden_layers"] * (attention + 3 * hidden * inner)
    return layer_bytes * layers + head_bytes * config["vocab_size"] * hidden
