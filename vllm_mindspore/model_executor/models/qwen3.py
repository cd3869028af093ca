# SPDX-License-Identifier: Apache-2.0
"""Qwen3, dense (https://arxiv.org/abs/2505.09388): Llama's decoder with normalised query and
key heads."""

from __future__ import annotations

from vllm_mindspore.model_executor.models.llama import Llama


class Qwen3(Llama):
    """Qwen3ForCausalLM."""
