# SPDX-License-Identifier: Apache-2.0
"""What every layer is built from: the parameter source, and which kernels execute it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mindspore import Parameter

from vllm_mindspore.model_executor.model_loader.adapter_slots import AdapterSlots
from vllm_mindspore.model_executor.model_loader.source import ParameterSource
from vllm_mindspore.quantization.plan import FloatPlan, Plan
from vllm_mindspore.quantization.schemes.base import Projections


@dataclass(frozen=True)
class LayerBuilder:
    """Given to each layer's constructor."""

    source: ParameterSource
    fused: bool
    """True: few fused CPU nodes per layer. False: the chain of builtin primitives, which is
    what an NPU runs and the reference the fused nodes are tested against."""
    adapters: AdapterSlots | None = None
    """Room for LoRA adapters beside every linear layer, when they are enabled."""
    quantization: Plan = field(default_factory=FloatPlan)
    """How each linear layer is stored."""

    def projection(
        self, names: Sequence[str], in_features: int, out_features: Sequence[int], *, bias: bool
    ) -> list[Parameter]:
        """What the kernels take of one to three linear layers of one input (core/projection.h)."""
        asked = Projections(tuple(names), in_features, tuple(out_features), bias)
        return self.quantization.scheme(names).parameters(self.source, asked).fused()
