# SPDX-License-Identifier: Apache-2.0
"""What quantization makes of activations, in float32: for searches and for errors in reports."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.description import DYNAMIC, STATICS, Tool
from vllm_mindspore.quantization.primitives import ActivationScale, activation_scale
from vllm_mindspore.quantization.ptq.linears import rounded

Floats = npt.NDArray[np.float32]


def static_scale(
    low: float, high: float, tool: Tool, dtype: torch.dtype
) -> tuple[ActivationScale, bool]:
    """Scale and zero point of a range as the tool chooses them, and whether the range had to be
    widened to hold zero, since int8 did not hold the zero point.

    Golden Stick's scale is one that `dtype` stores.
    """
    found, widened = activation_scale(low, high, with_zero=tool is Tool.MODELSLIM), False
    if not primitives.INT8_MIN <= found.offset <= primitives.INT8_MAX:
        found, widened = activation_scale(low, high, with_zero=True), True
    scale = float(rounded(found.scale, dtype)) if tool is Tool.GOLDEN_STICK else found.scale
    return ActivationScale(scale, found.offset), widened


def activations(x: Floats, kind: str, scale: ActivationScale | None) -> Floats:
    """x [M, K] after a round trip through the codes of `kind`; `scale` for static ones."""
    if kind in STATICS:
        assert scale is not None, "static activations have a scale"
        codes = primitives.quantize(x, scale.scale, scale.offset).astype(np.float32)
        return (codes - np.float32(scale.offset)) * np.float32(scale.scale)
    if kind == DYNAMIC:
        int8s, scales = primitives.quantize_per_token(x)
        return int8s.astype(np.float32) * scales[:, None]
    return x


def sqnr(exact: Floats, found: Floats) -> float | None:
    """Signal to quantization noise in dB; None where there is no noise or no signal."""
    signal = float(np.square(exact, dtype=np.float64).sum())
    noise = float(np.square(exact.astype(np.float64) - found).sum())
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None
