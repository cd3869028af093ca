# SPDX-License-Identifier: Apache-2.0
"""Quantization names as vLLM wants to know them: nothing but names.

What a checkpoint is, and what computes with it, is found in its files by the loader (`plan`).
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig

from vllm_mindspore.quantization.description import TOOLS


class FileQuantization(QuantizationConfig):
    """Stands for a format that the loader reads."""

    def get_name(self) -> str:
        """Name in messages."""
        return "files"

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        """Activations are floats between the quantized layers."""
        return [torch.float32, torch.bfloat16, torch.float16]

    @classmethod
    def get_min_capability(cls) -> int:
        """No accelerator capability is required."""
        return -1

    @staticmethod
    def get_config_filenames() -> list[str]:
        """None that vLLM should look for."""
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FileQuantization:
        """Of a `quantization_config` in config.json, whose content the loader checks."""
        return cls()

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> None:
        """There are no torch layers."""


class AscendQuantization(FileQuantization):
    """Stands for each of the names in TOOLS."""

    @classmethod
    def override_quantization_method(
        cls, hf_quant_cfg: dict[str, Any], user_quant: str | None, hf_config: Any = None
    ) -> str | None:
        """The name the user gave, where it may stand for the one in config.json.

        Raises:
            ValueError: the two contradict each other, and one is ours. (vLLM's own message does
                not say what to do.)
        """
        stated = hf_quant_cfg["quant_method"]
        if user_quant is None or user_quant == stated:
            return None
        if set(TOOLS.get(user_quant, ())) & set(TOOLS.get(stated, ())):
            return user_quant
        if user_quant in TOOLS or stated in TOOLS:
            raise ValueError(
                f"quantization={user_quant!r}, but quantization_config in config.json has "
                f"quant_method {stated!r}. Drop --quantization: the files say it"
            )
        return None
