# SPDX-License-Identifier: Apache-2.0
"""What a dense decoder needs to know, read from config.json and checked.

A value that the models do not implement is an error that names it, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm_mindspore.model_executor.layers.attention import AttentionConfig
from vllm_mindspore.model_executor.layers.rotary_embedding import RotaryConfig

_ROPE_KEYS = ("rope_type", "type", "rope_theta", "partial_rotary_factor")


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a Llama-like decoder."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    norm_epsilon: float
    tied_embeddings: bool
    attention: AttentionConfig
    rotary: RotaryConfig


def decoder_config(hf_config: Any, *, qk_norm: bool) -> DecoderConfig:
    """Reads a transformers config object of a Llama-like model.

    `qk_norm`: whether the architecture normalises query and key heads.
    Raises ValueError naming the field for values that are not implemented.
    """
    _refuse_unsupported(hf_config)
    heads = int(hf_config.num_attention_heads)
    head_dim = getattr(hf_config, "head_dim", None) or hf_config.hidden_size // heads
    rotary = _rotary_config(hf_config, int(head_dim))
    attention = AttentionConfig(
        hidden_size=int(hf_config.hidden_size),
        num_heads=heads,
        num_kv_heads=int(getattr(hf_config, "num_key_value_heads", None) or heads),
        head_dim=int(head_dim),
        rotary_dim=rotary.rotary_dim,
        norm_epsilon=float(hf_config.rms_norm_eps),
        qk_norm=qk_norm,
        bias=False,
    )
    _check_heads(attention)
    return DecoderConfig(
        vocab_size=int(hf_config.vocab_size),
        hidden_size=int(hf_config.hidden_size),
        intermediate_size=int(hf_config.intermediate_size),
        num_layers=int(hf_config.num_hidden_layers),
        norm_epsilon=float(hf_config.rms_norm_eps),
        tied_embeddings=bool(hf_config.tie_word_embeddings),
        attention=attention,
        rotary=rotary,
    )


def _refuse_unsupported(hf_config: Any) -> None:
    expected = {
        "hidden_act": ("silu", "swish"),
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "pretraining_tp": (1, None),
    }
    for field, accepted in expected.items():
        value = getattr(hf_config, field, accepted[0])
        if value not in accepted:
            raise ValueError(
                f"config.json: {field}={value!r} is not supported for model type "
                f"{hf_config.model_type}; supported: {accepted[0]!r}"
            )


def _check_heads(attention: AttentionConfig) -> None:
    if attention.num_heads % attention.num_kv_heads:
        raise ValueError(
            f"config.json: num_attention_heads={attention.num_heads} is not a multiple of "
            f"num_key_value_heads={attention.num_kv_heads}"
        )
    if attention.head_dim % 2:
        raise ValueError(
            f"config.json: head_dim={attention.head_dim} must be even for rotary embedding"
        )


def _rotary_config(hf_config: Any, head_dim: int) -> RotaryConfig:
    """Reads transformers 5's `rope_parameters`, or `rope_theta` + `rope_scaling` before it."""
    parameters: Mapping[str, Any] = getattr(hf_config, "rope_parameters", None) or {}
    scaling: Mapping[str, Any] = parameters or getattr(hf_config, "rope_scaling", None) or {}
    theta = parameters.get("rope_theta", getattr(hf_config, "rope_theta", None))
    if theta is None:
        raise ValueError("config.json: rope_theta is missing (rope_parameters.rope_theta)")
    partial = scaling.get(
        "partial_rotary_factor", getattr(hf_config, "partial_rotary_factor", None) or 1.0
    )
    rotary_dim = int(head_dim * partial)
    if rotary_dim % 2:
        raise ValueError(
            f"config.json: head_dim {head_dim} * partial_rotary_factor {partial} = {rotary_dim} "
            "must be even"
        )
    return RotaryConfig(
        rotary_dim=rotary_dim,
        theta=float(theta),
        rope_type=str(scaling.get("rope_type", scaling.get("type", "default"))),
        parameters={key: value for key, value in scaling.items() if key not in _ROPE_KEYS},
    )
