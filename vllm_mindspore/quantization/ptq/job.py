# SPDX-License-Identifier: Apache-2.0
"""What is to be quantized, and how: everything the engine needs, checked before it starts.

Imports no MindSpore.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vllm_mindspore import __version__
from vllm_mindspore.model_executor.models.layout import HEAD
from vllm_mindspore.quantization.description import Tool
from vllm_mindspore.quantization.ptq import policy as policies_module
from vllm_mindspore.quantization.ptq.float_checkpoint import FloatCheckpoint
from vllm_mindspore.quantization.ptq.policy import Policy

HEAD_PART = "head"


@dataclass(frozen=True)
class Job:
    """One checkpoint to be made.

    Attributes:
        policies: module -> policy, of all linear layers and of a quantized head.
        samples: token ids of the calibration data.
        tool: whose form the checkpoint has.
        int8_cache: whether the key/value cache is to be int8.
    """

    checkpoint: FloatCheckpoint
    policies: Mapping[str, Policy]
    samples: Sequence[Sequence[int]]
    tool: Tool
    int8_cache: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for what the tool has no form for, and for tokens the model lacks."""
        policies_module.check_tool(self.policies, self.tool)
        if not self.samples or not all(self.samples):
            raise ValueError("there is no calibration data, or an empty sample in it")
        least = min(min(sample) for sample in self.samples)
        most = max(max(sample) for sample in self.samples)
        if least < 0 or most >= self.checkpoint.config.vocab_size:
            raise ValueError(
                f"calibration data has token ids from {least} to {most}; the model has "
                f"{self.checkpoint.config.vocab_size} tokens: the tokenizer is another model's"
            )

    def parts(self) -> list[str]:
        """Names of the parts, in the order in which they are made."""
        layers = [f"layer-{index:05d}" for index in range(self.checkpoint.config.num_layers)]
        return [*layers, HEAD_PART] if HEAD in self.policies else layers

    def fingerprint(self) -> dict[str, Any]:
        """What finished parts depend on."""
        policies = {name: _plain(policy) for name, policy in self.policies.items()}
        return {
            "version": __version__,
            "source": self.checkpoint.state(),
            "options": _digest([policies, self.int8_cache]),
            "writer": self.tool.value,
            "calibration": _digest([list(sample) for sample in self.samples]),
        }


def _plain(policy: Policy) -> dict[str, Any]:
    plain = {**asdict(policy), "suppression": policy.suppression.value}
    if policy.sparsity is not None:
        plain["sparsity"] = {**plain["sparsity"], "method": policy.sparsity.method.value}
    return plain


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
