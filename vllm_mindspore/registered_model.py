# SPDX-License-Identifier: Apache-2.0
"""How our architectures look to vLLM's model registry: facts only, no model is imported."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from vllm.model_executor.models.config import VerifyAndUpdateConfig
from vllm.model_executor.models.registry import _BaseRegisteredModel, _ModelInfo

from vllm_mindspore import config_checks
from vllm_mindspore.model_executor.models import registry

if TYPE_CHECKING:
    from vllm.config import VllmConfig

# What differs from "no" in vLLM's description of a decoder-only text model.
_DECODER_FACTS: dict[str, Any] = {
    "is_text_generation_model": True,
    "attn_type": "decoder",
    "default_seq_pooling_type": "LAST",
    "default_tok_pooling_type": "ALL",
    "score_type": "bi-encoder",
    # Not so yet; but this way our own check answers, which says what to do.
    "supports_pp": True,
    "supported_video_pruning_methods": (),
}


@dataclass(frozen=True)
class RegisteredModel(_BaseRegisteredModel):
    """One architecture of ours: described at once, loaded in workers only."""

    architecture: str

    def inspect_model_cls(self) -> _ModelInfo:
        """vLLM's description; fields of a newer vLLM that we do not know are False."""
        facts = {field.name: False for field in fields(_ModelInfo)}
        return _ModelInfo(**{**facts, **_DECODER_FACTS, "architecture": self.architecture})

    def load_model_cls(self) -> type[Any]:
        """The MindSpore model class; imports MindSpore."""
        return registry.resolve([self.architecture])


def registered_models() -> dict[str, RegisteredModel]:
    """Architecture name to description, for every architecture we serve."""
    return {name: RegisteredModel(name) for name in registry.supported_architectures()}


class EngineDefaults(VerifyAndUpdateConfig):
    """What vLLM calls for an architecture before it fills in what the user left open."""

    @staticmethod
    def verify_and_update_config(vllm_config: VllmConfig) -> None:
        """Asynchronous scheduling only where it is asked for.

        A step is computed by the thread that schedules it: nothing overlaps, and its tokens would
        wait for the step behind it, a request that arrives for one more.

        Raises:
            ValueError: the ranks do not divide the model.
        """
        config_checks.check_divides(vllm_config)
        if vllm_config.scheduler_config.async_scheduling is None:
            vllm_config.scheduler_config.async_scheduling = False


def engine_defaults() -> dict[str, type[VerifyAndUpdateConfig]]:
    """Architecture name to its defaults, for every architecture we serve."""
    return dict.fromkeys(registry.supported_architectures(), EngineDefaults)
