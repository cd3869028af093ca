# SPDX-License-Identifier: Apache-2.0
"""The table of model architectures the Native backend implements. Imports no MindSpore."""

from __future__ import annotations

import importlib
from typing import Any

_MODELS = "vllm_mindspore.model_executor.models"

ARCHITECTURES: dict[str, str] = {
    "Ernie4_5ForCausalLM": f"{_MODELS}.ernie4_5:Ernie45",
    "Glm4ForCausalLM": f"{_MODELS}.glm4:Glm4",
    "GlmForCausalLM": f"{_MODELS}.glm:Glm",
    "LlamaForCausalLM": f"{_MODELS}.llama:Llama",
    "MistralForCausalLM": f"{_MODELS}.mistral:Mistral",
    "Qwen2ForCausalLM": f"{_MODELS}.qwen2:Qwen2",
    "Qwen3ForCausalLM": f"{_MODELS}.qwen3:Qwen3",
    "SeedOssForCausalLM": f"{_MODELS}.seed_oss:SeedOss",
}
"""Hugging Face architecture name -> "module:Class" of the model that runs it."""

POOLING_SUFFIXES = ("ForSequenceClassification", "Model")
"""Ends of names of models that pool with the decoder of a `ForCausalLM`."""


def supported_architectures() -> list[str]:
    """The architecture names, sorted."""
    return sorted(ARCHITECTURES)


def resolve(architectures: list[str], *, pools: bool = False) -> type[Any]:
    """The model class for the first supported name in a config.json's `architectures`.

    `pools`: the decoder of a model that pools serves, whatever head its name promises.
    Raises ValueError that names what was found and what is supported.
    """
    for found in architectures:
        name = decoder_of(found) if pools else found
        if name in ARCHITECTURES:
            module, _, class_name = ARCHITECTURES[name].partition(":")
            loaded: type[Any] = getattr(importlib.import_module(module), class_name)
            return loaded
    raise ValueError(
        f"model architectures {architectures} are not supported by the Native backend; "
        f"supported: {', '.join(supported_architectures())}"
    )


def decoder_of(architecture: str) -> str:
    """The architecture that generates with the decoder of one that pools; others are their own."""
    for suffix in POOLING_SUFFIXES:
        if architecture.endswith(suffix):
            return architecture.removesuffix(suffix) + "ForCausalLM"
    return architecture
