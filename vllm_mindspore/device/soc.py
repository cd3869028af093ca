# SPDX-License-Identifier: Apache-2.0
"""Which devices there are, and what can be said of this machine's without MindSpore.

The front end uses it; `runtime.computing_device` is what a worker knows.
"""

from __future__ import annotations

import enum
from pathlib import Path

_ASCEND_DRIVER = Path("/dev/davinci_manager")


class Device(enum.Enum):
    """What graphs run on."""

    CPU = "CPU"
    ASCEND_310P = "Ascend 310P"
    """Atlas 300I Duo."""
    ASCEND_910B = "Ascend 910B"
    """Atlas 800I A2."""


_SOCS = {"ascend310p": Device.ASCEND_310P, "ascend910b": Device.ASCEND_910B}


def has_ascend_driver() -> bool:
    """Whether this machine may have NPUs."""
    return _ASCEND_DRIVER.exists()


def known_device(*, npu: bool) -> Device | None:
    """CPU, or of an NPU None: only a worker can say which."""
    return None if npu else Device.CPU


def of_soc(name: str) -> Device:
    """The device that MindSpore calls so: ascend310p, or with its variant, Ascend310P3.

    Raises:
        ValueError: it is another one.
    """
    for prefix, device in _SOCS.items():
        if name.lower().startswith(prefix):
            return device
    raise ValueError(f"expected an NPU that is one of {', '.join(_SOCS)}; found {name!r}")
