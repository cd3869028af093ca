# SPDX-License-Identifier: Apache-2.0
"""Which LoRA adapters are in memory, and which slot of the model each request of a batch uses."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from vllm.config import LoRAConfig
from vllm.logger import init_logger
from vllm.lora.request import LoRARequest
from vllm.lora.utils import get_adapter_absolute_path

from vllm_mindspore.model_executor.model_loader.adapter_slots import (
    AdapterMatrices,
    AdapterSlots,
)
from vllm_mindspore.model_executor.model_loader.peft import load_adapter

logger = init_logger("vllm.vllm_mindspore.lora")

_NO_SLOT = -1


class LoraAdapters:
    """Adapters by id: up to `max_cpu_loras` read, up to `max_loras` of them in the model's slots.

    When there is no room for another, the one that was used longest ago and is not pinned goes.
    """

    def __init__(self, config: LoRAConfig, slots: AdapterSlots, dtype: torch.dtype) -> None:
        self._config = config
        self._slots = slots
        self._dtype = dtype
        assert config.max_cpu_loras is not None
        self._capacity = config.max_cpu_loras
        # Least recently used first.
        self._adapters: OrderedDict[int, Mapping[str, AdapterMatrices]] = OrderedDict()
        self._pinned: set[int] = set()
        self._in_slot: list[int | None] = [None] * slots.count

    def add(self, request: LoRARequest) -> bool:
        """Reads an adapter; whether it was not there before. ValueError for one that does not fit.

        `load_inplace` reads it again.
        """
        known = request.lora_int_id in self._adapters
        if known and not request.load_inplace:
            self._adapters.move_to_end(request.lora_int_id)
            return False
        folder = Path(get_adapter_absolute_path(request.lora_path))
        shapes = self._slots.shapes()
        adapter = load_adapter(folder, shapes, self._config, self._dtype)
        self.remove(request.lora_int_id)
        self._make_room()
        self._adapters[request.lora_int_id] = adapter
        logger.info("LoRA adapter %s: %d linear layers", request.lora_name, len(adapter))
        return not known

    def remove(self, adapter_id: int) -> bool:
        """Forgets an adapter; whether it was there."""
        if self._adapters.pop(adapter_id, None) is None:
            return False
        self._pinned.discard(adapter_id)
        self._in_slot = [None if held == adapter_id else held for held in self._in_slot]
        return True

    def pin(self, adapter_id: int) -> bool:
        """Keeps an adapter from being displaced. ValueError if it is not there."""
        if adapter_id not in self._adapters:
            raise ValueError(f"LoRA adapter {adapter_id} is not loaded; add it before pinning it")
        self._pinned.add(adapter_id)
        return True

    def ids(self) -> set[int]:
        """Of the adapters that are there."""
        return set(self._adapters)

    def activate(self, requests: Sequence[LoRARequest | None]) -> np.ndarray:
        """int32 [B]: the slot of each request's adapter, read and placed if need be; -1: none."""
        wanted = {request.lora_int_id: request for request in requests if request is not None}
        # Those that are there first, so that reading the others does not displace them.
        for request in sorted(wanted.values(), key=lambda r: r.lora_int_id not in self._adapters):
            self.add(request)
        for adapter_id in wanted.keys() - set(self._in_slot):
            self._place(adapter_id, keep=set(wanted))
        slots = [
            _NO_SLOT if request is None else self._in_slot.index(request.lora_int_id)
            for request in requests
        ]
        return np.array(slots, dtype=np.int32)

    def _place(self, adapter_id: int, keep: set[int]) -> None:
        """Into an empty slot, or that of the adapter used longest ago."""
        order = [None, *self._adapters]
        free = [slot for slot, held in enumerate(self._in_slot) if held not in keep]
        if not free:
            raise RuntimeError(
                f"a batch needs more than the {self._slots.count} LoRA adapters of --max-loras"
            )
        slot = min(free, key=lambda slot: order.index(self._in_slot[slot]))
        self._slots.write(slot, self._adapters[adapter_id])
        self._in_slot[slot] = adapter_id

    def _make_room(self) -> None:
        while len(self._adapters) >= self._capacity:
            movable = [
                adapter_id for adapter_id in self._adapters if adapter_id not in self._pinned
            ]
            if not movable:
                raise ValueError(
                    f"all {self._capacity} LoRA adapters of --max-cpu-loras are pinned; remove one"
                )
            self.remove(movable[0])
