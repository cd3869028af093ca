# SPDX-License-Identifier: Apache-2.0
"""Quantization names of the Ascend tools as vLLM wants to know them: nothing but names.

What a checkpoint is, and what computes with it, is found in its files by the loader (`plan`).
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig


class AscendQuantization(QuantizationConfig):
    """Stands for each of these names."""

    def get_name(self) -> str:
        """Name in messages."""
        return "ascend"

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
    def from_config(cls, config: dict[str, Any]) -> AscendQuantization:
        """Of a `quantization_config` in config.json, whose content the loader does not need."""
        return cls()

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> None:
        """There are no torch layers."""
