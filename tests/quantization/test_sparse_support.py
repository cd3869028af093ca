# SPDX-License-Identifier: Apache-2.0
"""Which coding is computed on which device: every combination."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from vllm_mindspore.device.soc import Device
from vllm_mindspore.quantization import sparse_support
from vllm_mindspore.quantization.sparse_description import Layout, RankBlock, SparseDescription

CPU, A310P, A910B = Device.CPU, Device.ASCEND_310P, Device.ASCEND_910B
OURS, NPU = True, False
NOT_PUBLIC = "its bit coding is not public and only the unzip unit of Atlas 300I Duo"

# (our coding, device, decode) -> parts of the refusal, none for what is computed.
EXPECTED: dict[tuple[bool, Device, bool], tuple[str, ...]] = {
    (OURS, CPU, False): (),
    (OURS, CPU, True): (),
    (OURS, A310P, False): (
        "unzip unit of Atlas 300I Duo (310P) cannot read",
        "vllm-mindspore convert {made} --output DIR --to w8a8s",
        "the vendor's tool, or set VLLM_MS_SPARSE_DECODE=1",
    ),
    (OURS, A310P, True): (),
    (OURS, A910B, False): ("(910B) has no kernel", "Set VLLM_MS_SPARSE_DECODE=1"),
    (OURS, A910B, True): (),
    (NPU, CPU, False): (
        NOT_PUBLIC,
        "vllm-mindspore convert W8A8S_DIR --output DIR --tensor-parallel-size 2",
    ),
    (NPU, CPU, True): (NOT_PUBLIC, "a CPU"),
    (NPU, A310P, False): (),
    (NPU, A310P, True): ("VLLM_MS_SPARSE_DECODE=1 decodes our coding alone. Unset it",),
    (NPU, A910B, False): (NOT_PUBLIC, "800I A2 (910B). Serve the uncompressed W8A8S checkpoint"),
    (NPU, A910B, True): (NOT_PUBLIC, "800I A2 (910B). Serve the uncompressed W8A8S checkpoint"),
}
FOLDER = Path("of {one}", "made")  # braces are part of a name


def found(own_codec: bool, layout: Layout = Layout.FOLDERS) -> SparseDescription:
    return SparseDescription(FOLDER / "x.json", layout, own_codec, "", (RankBlock({}, {}),) * 2)


@pytest.mark.parametrize("case", list(product([OURS, NPU], Device, [False, True])), ids=str)
def test_every_combination(case: tuple[bool, Device, bool]) -> None:
    own_codec, device, decode = case
    parts = EXPECTED[case]
    assert bool(sparse_support.refusal(own_codec, device, decode=decode)) == bool(parts)
    if not parts:
        sparse_support.check(found(own_codec), device, decode=decode)
        return
    with pytest.raises(ValueError, match=r"x.json: the weights \(rank_N folders\)") as error:
        sparse_support.check(found(own_codec), device, decode=decode)
    for part in parts:
        assert part.replace("{made}", str(FOLDER)) in str(error.value)


@pytest.mark.parametrize("own_codec", [OURS, NPU])
@pytest.mark.parametrize("decode", [False, True])
def test_a_device_that_is_not_known_yet(own_codec: bool, decode: bool) -> None:
    sparse_support.check(found(own_codec), None, decode=decode)


@pytest.mark.parametrize("device", [*Device, None])
def test_names_of_another_layout(device: Device | None) -> None:
    """MindIE's: computed nowhere."""
    expected = NOT_PUBLIC if device in (CPU, A910B) else "its layers have other names than here"
    with pytest.raises(ValueError, match=expected):
        sparse_support.check(found(NPU, Layout.PARTS), device, decode=False)


def test_devices_for_reports() -> None:
    decoded = "Ascend 310P with VLLM_MS_SPARSE_DECODE=1, Ascend 910B with VLLM_MS_SPARSE_DECODE=1"
    assert sparse_support.devices(found(OURS)) == f"CPU, {decoded}"
    assert sparse_support.devices(found(NPU)) == "Ascend 310P"
    assert sparse_support.devices(found(NPU, Layout.PARTS)).startswith("none")
