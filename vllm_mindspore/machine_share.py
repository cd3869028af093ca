# SPDX-License-Identifier: Apache-2.0
"""How many engines of one server share this machine (data parallelism).

vLLM tells a dense model's engines nothing of each other, but each worker must know how many divide
cores and memory. The number travels in VllmConfig.additional_config, which is there for platforms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.config import VllmConfig

KEY = "vllm_mindspore_engines"


def note_engines(vllm_config: VllmConfig) -> None:
    """For the front end, which alone sees all engines of this machine."""
    parallel = vllm_config.parallel_config
    if parallel.data_parallel_size > 1 and isinstance(vllm_config.additional_config, dict):
        vllm_config.additional_config[KEY] = max(1, parallel.data_parallel_size_local)


def ranks_of_machine(vllm_config: VllmConfig) -> int:
    """Workers of all engines on this machine."""
    options = vllm_config.additional_config
    engines = options.get(KEY, 1) if isinstance(options, dict) else 1
    return int(vllm_config.parallel_config.world_size) * int(engines)
