# SPDX-License-Identifier: Apache-2.0
"""Seed-OSS (https://huggingface.co/docs/transformers/model_doc/seed_oss): Llama's decoder with
biases on query, key and value."""

from __future__ import annotations

from vllm_mindspore.model_executor.models.llama import Llama


class SeedOss(Llama):
    """SeedOssForCausalLM."""
