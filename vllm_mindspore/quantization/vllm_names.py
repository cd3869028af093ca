# SPDX-License-Identifier: Apache-2.0
"""Quantization names of the Ascend tools, known to vLLM only so that our platform can refuse them.

Without them vLLM would answer with its own list of methods, none of which is supported here.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig

from vllm_mindspore.config_checks import refuse_quantization

NAMES = ("golden-stick", "golden_stick", "smoothquant", "ascend")


class UnsupportedQuantization(QuantizationConfig):
    """Stands for a method that MindSporePlatform.verify_quantization refuses."""

    def get_name(self) -> str:
        """Name in messages."""
        return "unsupported"

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        """No dtype is supported."""
        return []

    @classmethod
    def get_min_capability(cls) -> int:
        """No accelerator capability is required."""
        return -1

    @staticmethod
    def get_config_filenames() -> list[str]:
        """No file has to exist beside config.json."""
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> UnsupportedQuantization:
        """Raise ValueError naming the method of the checkpoint."""
        refuse_quantization(str(config.get("quant_method")))

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> None:
        """No layer has a method."""
