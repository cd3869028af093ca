# SPDX-License-Identifier: Apache-2.0
"""The table of model architectures the Native backend implements. Imports no MindSpore."""

from __future__ import annotations

import importlib
from typing import Any

_MODELS = "vllm_mindspore.model_executor.models"

ARCHITECTURES: dict[str, str] = {
    "LlamaForCausalLM": f"{_MODELS}.llama:Llama",
    "Qwen3ForCausalLM": f"{_MODELS}.qwen3:Qwen3",
}
"""Hugging Face architecture name -> "module:Class" of the model that runs it."""


def supported_architectures() -> list[str]:
    """The architecture names, sorted."""
    return sorted(ARCHITECTURES)


def resolve(architectures: list[str]) -> type[Any]:
    """The model class for the first supported name in a config.json's `architectures`.

    Raises ValueError that names what was found and what is supported.
    """
    for name in architectures:
        if name in ARCHITECTURES:
            module, _, class_name = ARCHITECTURES[name].partition(":")
            loaded: type[Any] = getattr(importlib.import_module(module), class_name)
            return loaded
    raise ValueError(
        f"model architectures {architectures} are not supported by the Native backend; "
        f"supported: {', '.join(supported_architectures())}"
    )
