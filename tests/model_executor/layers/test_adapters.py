# SPDX-License-Identifier: Apache-2.0
"""Linear layers with adapters against torch, by the fused node and by the primitive chain."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
import torch

from vllm_mindspore import bridge
from vllm_mindspore.device.kernel_library import KernelLibrary
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.layers.linear import build_linear, build_merged
from vllm_mindspore.model_executor.model_loader.adapter_slots import AdapterMatrices, AdapterSlots
from vllm_mindspore.model_executor.model_loader.source import DummySource

INPUTS, OUTPUTS, SLOTS, RANK, TOKENS = 24, {"q": 20, "k": 12, "v": 12}, 3, 4, 9
# fp32 sums of at most 24 products near 1.
TOLERANCE = 1e-5
pytestmark = pytest.mark.usefixtures("mindspore_runtime")


def adapters(names: list[str]) -> list[dict[str, AdapterMatrices]]:
    """One adapter per slot; the second leaves out the last layer and has a smaller rank."""
    return [
        {
            name: AdapterMatrices(torch.randn(rank, INPUTS), torch.randn(OUTPUTS[name], rank))
            for name in (names if slot != 1 else names[: max(1, len(names) - 1)])
        }
        for slot, rank in enumerate((RANK, RANK - 2, RANK))
    ]


def expected(
    base: torch.Tensor, x: torch.Tensor, slots: np.ndarray, names: list[str]
) -> torch.Tensor:
    torch.manual_seed(1)
    result, given = base.clone(), adapters(names)
    for row, slot in enumerate(slots):
        if slot >= 0:
            parts = [
                x[row] @ given[slot][n].a.T @ given[slot][n].b.T
                if n in given[slot]
                else torch.zeros(OUTPUTS[n])
                for n in names
            ]
            result[row] += torch.cat(parts)
    return result


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "chain"])
@pytest.mark.parametrize("names", [["q"], ["q", "k"], ["q", "k", "v"]], ids=len)
def test_each_token_gets_its_adapter(
    mindspore_runtime: KernelLibrary, fused: bool, names: list[str]
) -> None:
    room = AdapterSlots(SLOTS, RANK, torch.float32)
    builder = LayerBuilder(DummySource(torch.float32), fused=fused, adapters=room)
    sizes = [OUTPUTS[name] for name in names]
    layer = build_merged(builder, names, INPUTS, sizes, bias=False)
    row = ms.Tensor(shape=[None], dtype=ms.int32)
    layer.set_inputs(ms.Tensor(shape=[None, INPUTS], dtype=ms.float32), row)
    x = torch.randn(TOKENS, INPUTS)
    nobody = np.full(TOKENS, -1, np.int32)
    base = bridge.to_torch(layer(bridge.from_torch(x), bridge.from_numpy(nobody))).clone()
    torch.manual_seed(1)
    for slot, adapter in enumerate(adapters(names)):
        room.write(slot, adapter)
    slots = np.array([0, -1, 2, 1, 1, 0, -1, 2, 2], np.int32)
    found = bridge.to_torch(layer(bridge.from_torch(x), bridge.from_numpy(slots)))
    torch.testing.assert_close(found, expected(base, x, slots, names), atol=TOLERANCE, rtol=1e-5)
    assert torch.equal(found[slots < 0], base[slots < 0])


def test_layers_without_room_have_no_adapters(mindspore_runtime: KernelLibrary) -> None:
    for fused in (True, False):
        builder = LayerBuilder(DummySource(torch.float32), fused=fused)
        assert build_linear(builder, "q", INPUTS, OUTPUTS["q"]).adapters is None
