# SPDX-License-Identifier: Apache-2.0
"""Lets what is written for NPUs run on a CPU: all of it but the calls that only an NPU answers.

Graphs are the chain, caches are MindSpore's own memory, results are copied to the host, and ranks
find each other in MindSpore's world, by the group that it has for hosts.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import pytest

from vllm_mindspore import envs
from vllm_mindspore.device import runtime, soc
from vllm_mindspore.device.kernel_library import library_path
from vllm_mindspore.model_executor.backends import native

FREE_MEMORY = 1 << 30  # caches take what weights leave of it, all at once


def pretend(patch: pytest.MonkeyPatch) -> None:
    """Makes VLLM_MS_DEVICE=ascend possible in this process and those that are forked from it."""
    choose = runtime._choose_device
    patch.setenv("VLLM_MS_DEVICE", "ascend")
    patch.setattr(soc, "_ASCEND_DRIVER", Path("/dev"))
    patch.setattr(runtime, "_choose_device", lambda target, device_id: choose("CPU"))
    patch.setattr(ms.hal, "get_device_properties", _properties)
    patch.setattr(native, "computing_device", lambda: soc.Device.ASCEND_910B)
    envs.set_op_plugin(library_path())


def _properties(_: int) -> SimpleNamespace:
    return SimpleNamespace(free_memory=FREE_MEMORY)
