# SPDX-License-Identifier: Apache-2.0
"""Scales of an int8 key/value cache (C8) from keys and values that were seen, channel by channel.

Keys are calibrated as they are cached: after the norm of their heads and their rotation. Codes are
symmetric: a channel's largest magnitude becomes 127, its offset is 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.description import CACHE_OFFSET, CACHE_SCALE
from vllm_mindspore.quantization.ptq.linears import Tensors

Floats = npt.NDArray[np.float32]


def largest_magnitudes(rows: Floats, before: Floats | None = None) -> Floats:
    """Of each channel of keys or values [T, kv_heads * head_dim], and of those seen `before`.

    Raises ValueError for one that is not finite.
    """
    found: Floats = np.abs(rows).max(axis=0, initial=0.0).astype(np.float32)
    if not np.isfinite(found).all():
        raise ValueError("expected finite keys and values, found NaN or infinity among them")
    return found if before is None else np.maximum(found, before)


def tensors(largest: Floats) -> Tensors:
    """What the checkpoint holds beside the key (or value) projection, by last names: float32
    [kv_heads * head_dim]. A channel of zeros has the scale 1."""
    scale = np.where(largest == 0, 1.0, largest.astype(np.float64) / primitives.INT8_MAX)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    return {CACHE_SCALE: scale.astype(np.float32), CACHE_OFFSET: np.zeros(len(scale), np.float32)}
