# SPDX-License-Identifier: Apache-2.0
"""What a dense decoder needs to know, read from config.json and checked.

A value that the models do not implement is an error that names it, never ignored. Imports no
MindSpore: the front end runs these checks before it starts a worker.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vllm_mindspore.model_executor.layers.attention_config import AttentionConfig
from vllm_mindspore.model_executor.layers.rotary_embedding import RotaryConfig
from vllm_mindspore.quantization.sharding import Rank, vocabulary_rows

# In rope_parameters, but not values of a rope type; Yarn-Llama-2 states `finetuned`, a remark.
_NOT_SCALING = ("rope_type", "type", "rope_theta", "partial_rotary_factor", "finetuned")


@dataclass(frozen=True)
class Family:
    """What a model type fixes, and which fields of its config.json decide the rest.

    A bias is True or False for all checkpoints of the type, or the name of the deciding field.
    """

    qk_norm: bool = False
    """Whether query and key heads are normalised."""
    interleaved: bool = False
    """Whether neighbouring elements of a head are rotated together."""
    one_gate_up_tensor: bool = False
    """Whether `gate_up_proj` holds the gate and up projections."""
    qkv_bias: str | bool = False
    output_bias: str | bool = False
    mlp_bias: str | bool = False


FAMILIES: dict[str, Family] = {
    "ernie4_5": Family(
        interleaved=True, qkv_bias="use_bias", output_bias="use_bias", mlp_bias="use_bias"
    ),
    "glm": Family(interleaved=True, one_gate_up_tensor=True, qkv_bias="attention_bias"),
    "glm4": Family(interleaved=True, one_gate_up_tensor=True, qkv_bias="attention_bias"),
    "llama": Family(qkv_bias="attention_bias", output_bias="attention_bias", mlp_bias="mlp_bias"),
    "mistral": Family(),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(qk_norm=True, qkv_bias="attention_bias", output_bias="attention_bias"),
    "seed_oss": Family(
        qkv_bias="attention_bias", output_bias="attention_out_bias", mlp_bias="mlp_bias"
    ),
}
"""By config.json's `model_type`."""

_BIAS_FIELDS = ("attention_bias", "attention_out_bias", "mlp_bias", "qkv_bias", "use_bias")

# Fields of Llama-like models that change the computation, with the values that do not (the usual
# one first). Absent and null always pass.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "pretraining_tp": (1,),
    "is_causal": (True,),
    "use_bidirectional_attention": (False,),
    "alibi": (False,),
    "use_qk_norm": (False,),
    "use_parallel_residual": (False,),
    "attn_temperature_tuning": (False,),
    "attention_chunk_size": (),
    "attention_multiplier": (),
    "attn_logit_softcapping": (),
    "clip_qkv": (),
    "final_logit_softcapping": (),
    "llama_4_scaling": (),
    "no_rope_layers": (),
    "query_pre_attn_scalar": (),
    "embedding_multiplier": (1,),
    "residual_multiplier": (1,),
    "logits_scaling": (1,),
    "logit_scale": (1,),
    "scale_emb": (1,),
    "scale_depth": (),
}
# A window that is set is refused with the other options of vLLM; without one both are the same.
_LAYER_TYPES = ("full_attention", "sliding_attention")


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a Llama-like decoder."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    norm_epsilon: float
    tied_embeddings: bool
    mlp_bias: bool
    one_gate_up_tensor: bool
    attention: AttentionConfig
    rotary: RotaryConfig

    def of_rank(self, rank: Rank) -> DecoderConfig:
        """The shape of one rank's part: heads, kv heads (shared where the ranks outnumber them),
        feed-forward block and vocabulary.

        Raises:
            ValueError: a size that so many ranks do not divide.
        """
        count = rank.count
        if count == 1:
            return self
        for field, size, divides in self._divided(count):
            if not divides:
                raise ValueError(
                    f"config.json: {field}={size} cannot be divided among {count} ranks "
                    f"(--tensor-parallel-size); possible here: {self._possible()}"
                )
        attention = self.attention
        return replace(
            self,
            vocab_size=vocabulary_rows(self.vocab_size, count),
            intermediate_size=self.intermediate_size // count,
            attention=replace(
                attention,
                num_heads=attention.num_heads // count,
                num_kv_heads=max(1, attention.num_kv_heads // count),
            ),
        )

    def _divided(self, count: int) -> list[tuple[str, int, bool]]:
        """Field, its size and whether `count` ranks divide it."""
        heads, kv_heads = self.attention.num_heads, self.attention.num_kv_heads
        inner = self.intermediate_size
        return [
            ("num_attention_heads", heads, heads % count == 0),
            ("num_key_value_heads", kv_heads, kv_heads % count == 0 or count % kv_heads == 0),
            ("intermediate_size", inner, inner % count == 0),
        ]

    def _possible(self) -> str:
        counts = range(1, self.attention.num_heads + 1)
        found = [n for n in counts if all(divides for *_, divides in self._divided(n))]
        return ", ".join(map(str, found))


def decoder_config(hf_config: Any) -> DecoderConfig:
    """Reads a transformers config object of a Llama-like model, by its `model_type`.

    Raises ValueError naming field and value for what is missing, impossible or not implemented.
    """
    if hf_config.model_type not in FAMILIES:
        raise ValueError(
            f"config.json: model_type={hf_config.model_type!r} is not supported; "
            f"supported: {', '.join(FAMILIES)}"
        )
    family = FAMILIES[hf_config.model_type]
    _refuse_unsupported(hf_config, family)
    attention, rotary = _attention(hf_config, family)
    return DecoderConfig(
        vocab_size=_size(hf_config, "vocab_size"),
        hidden_size=attention.hidden_size,
        intermediate_size=_size(hf_config, "intermediate_size"),
        num_layers=_size(hf_config, "num_hidden_layers"),
        norm_epsilon=attention.norm_epsilon,
        tied_embeddings=bool(hf_config.tie_word_embeddings),
        mlp_bias=_bias(hf_config, family.mlp_bias),
        one_gate_up_tensor=family.one_gate_up_tensor,
        attention=attention,
        rotary=rotary,
    )


def _attention(hf_config: Any, family: Family) -> tuple[AttentionConfig, RotaryConfig]:
    hidden = _size(hf_config, "hidden_size")
    heads = _size(hf_config, "num_attention_heads")
    kv_heads = _size(hf_config, "num_key_value_heads", default=heads)
    if heads % kv_heads:
        raise ValueError(
            f"config.json: num_attention_heads={heads} is not a multiple of "
            f"num_key_value_heads={kv_heads}"
        )
    rotary = _rotary(hf_config, _head_dim(hf_config, hidden, heads), family.interleaved)
    attention = AttentionConfig(
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=_head_dim(hf_config, hidden, heads),
        rotary_dim=rotary.rotary_dim,
        norm_epsilon=_number(hf_config, "rms_norm_eps"),
        qk_norm=family.qk_norm,
        bias=_bias(hf_config, family.qkv_bias),
        output_bias=_bias(hf_config, family.output_bias),
        interleaved=family.interleaved,
    )
    return attention, rotary


def _head_dim(hf_config: Any, hidden: int, heads: int) -> int:
    if getattr(hf_config, "head_dim", None) is None and hidden % heads:
        raise ValueError(
            f"config.json: hidden_size={hidden} is not a multiple of num_attention_heads={heads}, "
            "and head_dim is missing"
        )
    head_dim = _size(hf_config, "head_dim", default=hidden // heads)
    if head_dim % 2:
        raise ValueError(f"config.json: head_dim={head_dim} must be even for rotary embedding")
    return head_dim


def _size(hf_config: Any, field: str, *, default: int | None = None) -> int:
    value = getattr(hf_config, field, None)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"config.json: {field}={value!r} must be a positive integer")
    return value


def _number(hf_config: Any, field: str) -> float:
    value = getattr(hf_config, field, None)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError(f"config.json: {field}={value!r} must be a number from 0")
    return float(value)


def _bias(hf_config: Any, decided_by: str | bool) -> bool:
    if isinstance(decided_by, bool):
        return decided_by
    value = getattr(hf_config, decided_by, None)
    if value not in (True, False, None):
        raise ValueError(f"config.json: {decided_by}={value!r} must be true or false")
    return bool(value)


def _refuse_unsupported(hf_config: Any, family: Family) -> None:
    read = (family.qkv_bias, family.output_bias, family.mlp_bias)
    fixed: dict[str, tuple[Any, ...]] = {
        field: (True, False) if field in read else (False,) for field in _BIAS_FIELDS
    }
    if family.qkv_bias is True:
        fixed["attention_bias"] = fixed["qkv_bias"] = (True,)
    for field, accepted in {**_UNSUPPORTED, **fixed}.items():
        value = getattr(hf_config, field, None)
        if value is not None and value not in accepted:
            _refuse(hf_config, field, value, accepted[0] if accepted else "leaving it out")
    for kind in getattr(hf_config, "layer_types", None) or ():
        if kind not in _LAYER_TYPES:
            _refuse(hf_config, "layer_types", kind, " and ".join(_LAYER_TYPES))


def _refuse(hf_config: Any, field: str, value: Any, supported: Any) -> None:
    raise ValueError(
        f"config.json: {field}={value!r} is not supported for model type {hf_config.model_type}; "
        f"supported: {supported}"
    )


def _rotary(hf_config: Any, head_dim: int, interleaved: bool) -> RotaryConfig:
    """Reads transformers 5's `rope_parameters`, or `rope_theta` + `rope_scaling` before it."""
    parameters: Mapping[str, Any] = getattr(hf_config, "rope_parameters", None) or {}
    scaling: Mapping[str, Any] = parameters or getattr(hf_config, "rope_scaling", None) or {}
    for name, value in scaling.items():
        if isinstance(value, Mapping):
            _refuse(hf_config, f"rope_parameters[{name!r}]", value, "one set for all layers")
    theta = scaling.get("rope_theta", getattr(hf_config, "rope_theta", None))
    if not isinstance(theta, int | float):
        raise ValueError(
            f"config.json: rope_theta={theta!r} (or rope_parameters.rope_theta) must be a number"
        )
    return RotaryConfig(
        rotary_dim=_rotary_dim(hf_config, scaling, head_dim),
        theta=float(theta),
        rope_type=str(scaling.get("rope_type", scaling.get("type", "default"))),
        parameters={
            key: value
            for key, value in scaling.items()
            if key not in _NOT_SCALING and value is not None
        },
        trained_positions=_size(hf_config, "max_position_embeddings"),
        interleaved=interleaved,
    )


def _rotary_dim(hf_config: Any, scaling: Mapping[str, Any], head_dim: int) -> int:
    stated = scaling.get("partial_rotary_factor", getattr(hf_config, "partial_rotary_factor", None))
    partial = 1.0 if stated is None else stated
    if not isinstance(partial, int | float) or not 0 < partial <= 1:
        raise ValueError(
            f"config.json: partial_rotary_factor={partial!r} must be above 0 and at most 1"
        )
    rotary_dim = int(head_dim * partial)
    if rotary_dim % 2:
        raise ValueError(
            f"config.json: head_dim {head_dim} * partial_rotary_factor {partial} = {rotary_dim} "
            "must be even"
        )
    return rotary_dim
