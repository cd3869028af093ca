# SPDX-License-Identifier: Apache-2.0
"""Post-training quantization: the engine behind `vllm-mindspore quantize`, and Golden Stick's names
for it. MindSpore is imported with the first name that needs it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_CONFIG = (
    *("AWQConfig", "BackendTarget", "GPTQQuantConfig", "OutliersSuppressionType", "PTQConfig"),
    *("PTQMode", "PrecisionRecovery", "QuantGranularity", "SmoothQuantConfig"),
)
_PLACES = {
    **dict.fromkeys(_CONFIG, "config"),
    **{"PTQ": "golden_stick", "save": "golden_stick"},
    **{"NativeNetwork": "network", "load_network": "network"},
    "ceval_dataset": "datasets",
}
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
