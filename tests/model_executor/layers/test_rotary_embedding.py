# SPDX-License-Identifier: Apache-2.0
"""Frequency tables against transformers' own rotary embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from vllm_mindspore.model_executor.layers.rotary_embedding import RotaryConfig, rotary_tables
from vllm_mindspore.model_executor.models.config import decoder_config

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
# transformers multiplies in fp32: an angle of up to 512 radians carries 512 * 2^-24 of error.
ANGLE_ERROR = 512 * 2**-23


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "rope_theta": 10000.0},
        {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        {"rope_type": "llama3", "rope_theta": 500000.0} | LLAMA3,
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_tables_equal_transformers(rope: dict[str, Any]) -> None:
    config = LlamaConfig(
        hidden_size=64,
        num_attention_heads=2,
        max_position_embeddings=512,
        rope_parameters=rope,
        vocab_size=8,
    )
    positions = torch.arange(512)[None]
    expected = LlamaRotaryEmbedding(config)(torch.zeros(1), positions)
    found = rotary_tables(decoder_config(config, qk_norm=False).rotary, 512)
    for table, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(table, reference[0].numpy(), rtol=0, atol=ANGLE_ERROR)


def test_unknown_rope_type_names_the_choices() -> None:
    config = RotaryConfig(rotary_dim=8, theta=1e4, rope_type="spiral", parameters={})
    with pytest.raises(ValueError, match=r"'spiral' is not supported; supported: default, linear"):
        rotary_tables(config, 4)
