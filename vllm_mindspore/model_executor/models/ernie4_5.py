# SPDX-License-Identifier: Apache-2.0
"""ERNIE 4.5, dense (https://huggingface.co/docs/transformers/model_doc/ernie4_5): Llama's decoder
with heads rotated in neighbouring pairs."""

from __future__ import annotations

from vllm_mindspore.model_executor.models.llama import Llama


class Ernie45(Llama):
    """Ernie4_5ForCausalLM."""
