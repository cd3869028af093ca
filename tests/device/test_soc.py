# SPDX-License-Identifier: Apache-2.0
"""Devices by the names that MindSpore gives them."""

from __future__ import annotations

import pytest

from vllm_mindspore.device import soc
from vllm_mindspore.device.soc import Device


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("ascend310p", Device.ASCEND_310P),
        ("Ascend310P3", Device.ASCEND_310P),
        ("ascend910b", Device.ASCEND_910B),
        ("Ascend910B4", Device.ASCEND_910B),
    ],
)
def test_names(name: str, device: Device) -> None:
    assert soc.of_soc(name) is device


@pytest.mark.parametrize("name", ["", "ascend910", "ascend910_93", "ascend310b", "xascend310p"])
def test_others_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"ascend310p, ascend910b; found '{name}'"):
        soc.of_soc(name)


def test_which_npu_it_is_is_left_to_the_worker() -> None:
    assert soc.known_device(npu=False) is Device.CPU
    assert soc.known_device(npu=True) is None
