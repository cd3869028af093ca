# SPDX-License-Identifier: Apache-2.0
"""What every layer is built from: the parameter source, and which kernels execute it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mindspore import Parameter

from vllm_mindspore.model_executor.model_loader.adapter_slots import AdapterSlots
from vllm_mindspore.model_executor.model_loader.source import ParameterSource
from vllm_mindspore.quantization.plan import FloatPlan, Plan
from vllm_mindspore.quantization.schemes import int8_cache
from vllm_mindspore.quantization.schemes.base import LinearParameters, Projections
from vllm_mindspore.quantization.schemes.float_linear import Float
from vllm_mindspore.quantization.sharding import Rank


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
    apart: bool = False
    """Whether linear layers stay cells of their own, so that calibration sees their inputs."""
    rank: Rank = field(default_factory=lambda: Rank(0, 1))
    """Whose part of the model is built. The source gives parameters of this rank's shapes."""

    def is_plain(self, names: Sequence[str]) -> bool:
        """Whether these linear layers of one input are float, in tensors of their own names."""
        return isinstance(self.quantization.scheme(names), Float)

    def linear(
        self, names: Sequence[str], in_features: int, out_features: Sequence[int], *, bias: bool
    ) -> LinearParameters:
        """The parameters of one to three linear layers of one input."""
        asked = Projections(tuple(names), in_features, tuple(out_features), bias)
        return self.quantization.scheme(names).parameters(self.source, asked)

    def projection(
        self, names: Sequence[str], in_features: int, out_features: Sequence[int], *, bias: bool
    ) -> list[Parameter]:
        """The same as the fused kernels take them (core/projection.h)."""
        return self.linear(names, in_features, out_features, bias=bias).fused()

    def cache_scales(self, attention: str, channels: int) -> list[Parameter]:
        """What the kernels take of the int8 cache of an attention layer, nothing for other caches.
        `channels`: head_dim of all kv heads."""
        if not self.quantization.int8_cache:
            return []
        return [int8_cache.scales(self.source, attention, channels)]
