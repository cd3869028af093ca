# SPDX-License-Identifier: Apache-2.0
"""Which adapters are kept, which slot each gets, and who has to go."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from vllm.config import LoRAConfig
from vllm.lora.request import LoRARequest

from tests.model_executor.model_loader.adapters import write_adapter
from vllm_mindspore.model_executor.model_loader.adapter_slots import AdapterSlots, SlotMemory
from vllm_mindspore.worker.lora import LoraAdapters

SHAPES = {"model.layers.0.mlp.down_proj": (8, 6)}
SLOTS, CAPACITY = 2, 3


class Loaded:
    """Adapters 1, 2, ... of a folder over the memory of one layer."""

    def __init__(self, folder: Path) -> None:
        config = LoRAConfig(max_loras=SLOTS, max_cpu_loras=CAPACITY, max_lora_rank=8)
        slots = AdapterSlots(SLOTS, 8, torch.float32)
        (name, (inputs, outputs)) = next(iter(SHAPES.items()))
        self.memory: SlotMemory = slots.attach([name], inputs, [outputs])
        self.adapters = LoraAdapters(config, slots, torch.float32)
        self.folder = folder

    def request(self, number: int, **options: bool) -> LoRARequest:
        path = self.folder / str(number)
        if not path.exists():
            write_adapter(path, SHAPES, seed=number)
        return LoRARequest(f"adapter-{number}", number, str(path), **options)

    def activate(self, *numbers: int) -> list[int]:
        """Slots of requests with these adapters, 0 for none."""
        requests = [self.request(number) if number else None for number in numbers]
        return self.adapters.activate(requests).tolist()

    def row(self, slot: int) -> torch.Tensor:
        """What the graph reads of a slot."""
        return self.memory.a[slot, 0].clone()


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    return Loaded(tmp_path)


def test_requests_share_the_slot_of_their_adapter(loaded: Loaded) -> None:
    first, none, second, again = loaded.activate(1, 0, 2, 1)
    assert none == -1
    assert {first, second} == {0, 1}
    assert again == first
    assert not torch.equal(loaded.row(first), loaded.row(second))


def test_a_slot_stays_while_nobody_needs_it(loaded: Loaded) -> None:
    (slot,) = loaded.activate(1)
    loaded.activate(2)
    assert loaded.activate(1) == [slot]


def test_the_adapter_used_longest_ago_leaves_its_slot(loaded: Loaded) -> None:
    one, two = loaded.activate(1)[0], loaded.activate(2)[0]
    before = loaded.row(two)
    loaded.activate(1)
    assert loaded.activate(3) == [two]
    assert not torch.equal(loaded.row(two), before)
    assert loaded.activate(1) == [one]


def test_only_so_many_are_kept(loaded: Loaded) -> None:
    for number in (1, 2, 3, 1, 4):
        loaded.adapters.add(loaded.request(number))
    assert loaded.adapters.ids() == {1, 3, 4}


def test_pinned_adapters_stay(loaded: Loaded) -> None:
    for number in (1, 2, 3):
        assert loaded.adapters.add(loaded.request(number))
        assert loaded.adapters.pin(number)
    with pytest.raises(ValueError, match="all 3 LoRA adapters of --max-cpu-loras are pinned"):
        loaded.adapters.add(loaded.request(4))
    assert loaded.adapters.remove(2)
    assert loaded.adapters.add(loaded.request(4))
    assert loaded.adapters.ids() == {1, 3, 4}
    with pytest.raises(ValueError, match="2 is not loaded"):
        loaded.adapters.pin(2)


def test_adding_twice_and_removing_twice(loaded: Loaded) -> None:
    assert loaded.adapters.add(loaded.request(1))
    assert not loaded.adapters.add(loaded.request(1))
    assert loaded.adapters.remove(1)
    assert not loaded.adapters.remove(1)


def test_reading_in_place_replaces_the_values(loaded: Loaded) -> None:
    (slot,) = loaded.activate(1)
    before = loaded.row(slot)
    write_adapter(loaded.folder / "1", SHAPES, seed=99)
    loaded.activate(1)
    assert torch.equal(loaded.row(slot), before)
    assert not loaded.adapters.add(loaded.request(1, load_inplace=True))
    assert loaded.activate(1) == [slot]
    assert not torch.equal(loaded.row(slot), before)


def test_a_batch_with_too_many_is_an_error(loaded: Loaded) -> None:
    with pytest.raises(RuntimeError, match="more than the 2 LoRA adapters of --max-loras"):
        loaded.activate(1, 2, 3)


def test_a_broken_adapter_leaves_the_others(loaded: Loaded) -> None:
    loaded.activate(1)
    broken = loaded.request(2)
    (loaded.folder / "2" / "adapter_model.safetensors").unlink()
    with pytest.raises(ValueError, match="does not exist"):
        loaded.adapters.add(broken)
    assert loaded.adapters.ids() == {1}
