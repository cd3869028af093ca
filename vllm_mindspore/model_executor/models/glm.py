# SPDX-License-Identifier: Apache-2.0
"""GLM-4 as first published (https://arxiv.org/abs/2406.12793): Llama's decoder with half of each
head rotated, in neighbouring pairs, and gate and up as one tensor."""

from __future__ import annotations

from vllm_mindspore.model_executor.models.llama import Llama


class Glm(Llama):
    """GlmForCausalLM."""
