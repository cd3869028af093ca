# SPDX-License-Identifier: Apache-2.0
"""Frequencies and tables against transformers' own rope functions, number by number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import Glm4Config, LlamaConfig, PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.glm4.modeling_glm4 import Glm4RotaryEmbedding, apply_rotary_pos_emb
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from vllm_mindspore.model_executor.layers.rotary_embedding import (
    ROPE_TYPES,
    RotaryConfig,
    attention_factor,
    inverse_frequencies,
    rotary_tables,
)
from vllm_mindspore.model_executor.models.config import decoder_config

POSITIONS = 512
# transformers computes frequencies in fp32: a power, a division and up to five roundings more.
FREQUENCY_ERROR = 8 * 2.0**-24
# ... and multiplies in fp32: an angle of up to 512 radians carries 512 * 2^-24 of error.
ANGLE_ERROR = POSITIONS * 2.0**-23

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 3.0},
    "llama3": {"rope_type": "llama3", "original_max_position_embeddings": 64} | LLAMA3,
    "llama3-trained-length": {"rope_type": "llama3"} | LLAMA3,
    "yarn": YARN,
    "yarn-trained-length": {"rope_type": "yarn", "factor": 2},
    "yarn-factor-below-1": YARN | {"factor": 0.5},
    "yarn-attention-factor": YARN | {"attention_factor": 0.83},
    "yarn-betas": YARN | {"beta_fast": 20, "beta_slow": 2.5},
    "yarn-exact-bounds": YARN | {"truncate": False},
    "yarn-mscale": YARN | {"mscale": 0.707, "mscale_all_dim": 1.3},
    "yarn-one-pair": YARN | {"beta_fast": 1.0, "beta_slow": 1.0, "truncate": False},
}


def _llama(rope: dict[str, Any], *, theta: float = 10000.0, positions: int = POSITIONS) -> Any:
    return LlamaConfig(
        hidden_size=192,
        num_attention_heads=3,
        max_position_embeddings=positions,
        rope_parameters=rope | {"rope_theta": theta},
        vocab_size=8,
    )


def _init(config: PretrainedConfig, **options: Any) -> tuple[np.ndarray, float]:
    rope_type = config.rope_parameters["rope_type"]
    if rope_type == "default":
        frequencies, factor = LlamaRotaryEmbedding.compute_default_rope_parameters(config)
    else:
        frequencies, factor = ROPE_INIT_FUNCTIONS[rope_type](config, **options)
    return frequencies.double().numpy(), factor


@pytest.mark.parametrize("theta", [10000.0, 1e6])
@pytest.mark.parametrize("name", ROPES)
def test_frequencies_equal_transformers(name: str, theta: float) -> None:
    config = _llama(ROPES[name], theta=theta)
    rotary = decoder_config(config).rotary
    frequencies, factor = _init(config)
    np.testing.assert_allclose(
        inverse_frequencies(rotary, POSITIONS), frequencies, rtol=FREQUENCY_ERROR
    )
    assert attention_factor(rotary) == pytest.approx(factor, rel=1e-12)


def test_every_rope_type_is_compared() -> None:
    assert {rope["rope_type"] for rope in ROPES.values()} == set(ROPE_TYPES)


@pytest.mark.parametrize("served", [100, 256, 700, 2000])
def test_dynamic_is_that_of_the_longest_sequence(served: int) -> None:
    """Up to the trained length the default type; beyond, what transformers computes for a sequence
    as long as the longest that is served."""
    config = _llama(ROPES["dynamic"], positions=256)
    rotary = decoder_config(config).rotary
    expected, _ = _init(config, seq_len=served)
    found = inverse_frequencies(rotary, served)
    np.testing.assert_allclose(found, expected, rtol=FREQUENCY_ERROR)
    default, _ = _init(_llama(ROPES["default"], positions=256))
    assert np.allclose(found, default, rtol=1e-6) == (served <= 256)


@pytest.mark.parametrize("name", ROPES)
def test_tables_equal_transformers(name: str) -> None:
    config = _llama(ROPES[name])
    positions = torch.arange(POSITIONS)[None]
    expected = LlamaRotaryEmbedding(config)(torch.zeros(1), positions)
    found = rotary_tables(decoder_config(config).rotary, POSITIONS)
    for table, reference in zip(found, expected, strict=True):
        assert table.dtype == np.float32
        np.testing.assert_allclose(table, reference[0].numpy(), rtol=0, atol=ANGLE_ERROR)


@pytest.mark.parametrize("name", ["default", "yarn"])
def test_interleaved_partial_tables_rotate_as_transformers_does(name: str) -> None:
    config = Glm4Config(
        hidden_size=64,
        num_attention_heads=2,
        head_dim=32,
        max_position_embeddings=POSITIONS,
        rope_parameters=ROPES[name] | {"rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    )
    rotary = decoder_config(config).rotary
    assert (rotary.rotary_dim, rotary.interleaved) == (16, True)
    cos, sin = (torch.from_numpy(table) for table in rotary_tables(rotary, POSITIONS))
    x = torch.randn(1, 2, POSITIONS, 32)
    angles = Glm4RotaryEmbedding(config)(torch.zeros(1), torch.arange(POSITIONS)[None])
    expected, _ = apply_rotary_pos_emb(x, x, *angles)
    pairs = x[..., :16].unflatten(-1, (8, 2))
    turned = torch.stack([-pairs[..., 1], pairs[..., 0]], -1).flatten(-2)
    found = torch.cat([x[..., :16] * cos + turned * sin, x[..., 16:]], -1)
    torch.testing.assert_close(found, expected, rtol=0, atol=8 * ANGLE_ERROR)


def _rotary(**changes: Any) -> RotaryConfig:
    values: dict[str, Any] = {
        "rotary_dim": 8,
        "theta": 1e4,
        "rope_type": "default",
        "parameters": {},
        "trained_positions": 64,
    }
    return RotaryConfig(**(values | changes))


LLAMA3_SWAPPED = LLAMA3 | {"low_freq_factor": 4.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rope_type": "longrope"},
            "'longrope' is not supported; supported: default, linear, dynamic, llama3, yarn",
        ),
        ({"rope_type": "linear"}, "'linear' lacks factor"),
        ({"rope_type": "llama3", "parameters": {"factor": 2}}, "lacks low_freq_factor, high_freq"),
        ({"parameters": {"mrope_section": [8]}}, r"'default' with mrope_section=\[8\] is not supp"),
        ({"rope_type": "dynamic", "parameters": {"factor": 2, "alpha": 9}}, "with alpha=9 is not"),
        ({"rope_type": "linear", "parameters": {"factor": "2"}}, "factor='2' must be a positive"),
        ({"rope_type": "linear", "parameters": {"factor": 0}}, "factor=0 must be a positive"),
        ({"rope_type": "yarn", "parameters": {"factor": float("nan")}}, "factor=nan must be a pos"),
        (
            {"rope_type": "yarn", "parameters": {"factor": 2, "truncate": 1}},
            "truncate=1 must be true or false",
        ),
        ({"theta": 0.0}, "rope_theta=0.0 must be greater than 1"),
        ({"theta": float("nan")}, "rope_theta=nan must be greater than 1"),
        ({"rotary_dim": 7}, "7 elements of each head are rotated"),
        (
            {"rope_type": "dynamic", "parameters": {"factor": 2}, "rotary_dim": 2},
            "even number of at least 4",
        ),
        (
            {"rope_type": "llama3", "parameters": LLAMA3_SWAPPED},
            "low_freq_factor=4.0 must be smaller than high_freq_factor=4.0",
        ),
    ],
)
def test_values_that_do_not_work_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _rotary(**changes)
