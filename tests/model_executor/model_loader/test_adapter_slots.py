# SPDX-License-Identifier: Apache-2.0
"""Slots hold one adapter each, and nothing of the one before."""

from __future__ import annotations

import torch

from vllm_mindspore.model_executor.model_loader.adapter_slots import AdapterMatrices, AdapterSlots


def test_a_slot_holds_its_adapter_and_zeros() -> None:
    slots = AdapterSlots(count=3, rank=4, dtype=torch.float32)
    memory = slots.attach(["q", "k"], 8, [6, 2])
    assert slots.shapes() == {"q": (8, 6), "k": (8, 2)}
    assert slots.num_bytes == 4 * (3 * 2 * 4 * 8 + 3 * 4 * (6 + 2))
    first = AdapterMatrices(torch.ones(4, 8), torch.ones(6, 4))
    slots.write(1, {"q": first, "k": AdapterMatrices(torch.ones(4, 8), torch.ones(2, 4))})
    second = AdapterMatrices(torch.full((2, 8), 2.0), torch.full((6, 2), 3.0))
    slots.write(1, {"q": second})
    assert torch.equal(memory.a[1, 0], torch.cat([second.a, torch.zeros(2, 8)]))
    assert torch.equal(memory.b[0][:, 1], torch.cat([second.b, torch.zeros(6, 2)], dim=1))
    assert not memory.a[1, 1].any()
    assert not memory.b[1].any()
    assert not memory.a[[0, 2]].any()
