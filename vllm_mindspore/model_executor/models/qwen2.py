# SPDX-License-Identifier: Apache-2.0
"""Qwen2 and Qwen2.5, dense (https://arxiv.org/abs/2412.15115): Llama's decoder with biases on
query, key and value."""

from __future__ import annotations

from vllm_mindspore.model_executor.models.llama import Llama


class Qwen2(Llama):
    """Qwen2ForCausalLM."""
