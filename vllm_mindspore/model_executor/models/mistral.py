# SPDX-License-Identifier: Apache-2.0
"""Mistral (https://arxiv.org/abs/2310.06825): Llama's decoder; a sliding window
is refused at start-up."""

from __future__ import annotations

from vllm_mindspore.model_executor.models.llama import Llama


class Mistral(Llama):
    """MistralForCausalLM."""
