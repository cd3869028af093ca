# SPDX-License-Identifier: Apache-2.0
"""config.json values are read in both spellings, and refused by name when not implemented."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import LlamaConfig, Qwen3Config

from vllm_mindspore.model_executor.layers.rotary_embedding import rotary_tables
from vllm_mindspore.model_executor.models.config import decoder_config


def _old_config(**changes: Any) -> SimpleNamespace:
    """A config object as transformers 4 made it."""
    values: dict[str, Any] = {
        "model_type": "llama",
        "vocab_size": 100,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "rope_theta": 1e6,
        "rope_scaling": None,
    }
    return SimpleNamespace(**(values | changes))


def test_head_dim_is_independent_of_hidden_size() -> None:
    config = decoder_config(
        Qwen3Config(hidden_size=64, num_attention_heads=4, head_dim=40, num_key_value_heads=2),
        qk_norm=True,
    )
    assert (config.attention.query_size, config.attention.kv_size) == (160, 80)
    assert config.attention.qk_norm


def test_head_dim_defaults_to_hidden_size_per_head() -> None:
    assert decoder_config(_old_config(), qk_norm=False).attention.head_dim == 16


def test_both_spellings_of_rope_agree() -> None:
    old = decoder_config(_old_config(rope_scaling={"type": "linear", "factor": 2.0}), qk_norm=False)
    new = decoder_config(
        LlamaConfig(
            hidden_size=64,
            num_attention_heads=4,
            rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e6},
        ),
        qk_norm=False,
    )
    assert old.rotary == new.rotary


@pytest.mark.parametrize(
    ("field", "value"),
    [("hidden_act", "gelu"), ("attention_bias", True), ("mlp_bias", True)],
)
def test_values_that_are_not_implemented_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{field}={value!r} is not supported"):
        decoder_config(_old_config(**{field: value}), qk_norm=False)


def test_heads_must_divide() -> None:
    with pytest.raises(ValueError, match="num_attention_heads=4 is not a multiple"):
        decoder_config(_old_config(num_key_value_heads=3), qk_norm=False)


def test_missing_theta_is_named() -> None:
    with pytest.raises(ValueError, match="rope_theta is missing"):
        decoder_config(_old_config(rope_theta=None), qk_norm=False)


def test_rope_scaling_without_its_values_is_named() -> None:
    config = decoder_config(_old_config(rope_scaling={"rope_type": "linear"}), qk_norm=False)
    with pytest.raises(ValueError, match="'linear' lacks factor"):
        rotary_tables(config.rotary, 4)


def test_an_odd_rotary_dim_is_named() -> None:
    with pytest.raises(ValueError, match="= 7 must be even"):
        decoder_config(_old_config(partial_rotary_factor=0.47), qk_norm=False)
