# SPDX-License-Identifier: Apache-2.0
"""What every layer is built from: the parameter source, and which kernels execute it."""

from __future__ import annotations

from dataclasses import dataclass

from vllm_mindspore.model_executor.model_loader.adapter_slots import AdapterSlots
from vllm_mindspore.model_executor.model_loader.source import ParameterSource


@dataclass(frozen=True)
class LayerBuilder:
    """Given to each layer's constructor."""

    source: ParameterSource
    fused: bool
    """True: few fused CPU nodes per layer. False: the chain of builtin primitives, which is
    what an NPU runs and the reference the fused nodes are tested against."""
    adapters: AdapterSlots | None = None
    """Room for LoRA adapters beside every linear layer, when they are enabled."""
