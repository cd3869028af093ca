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
from vllm_mindspore.quantization.ptq.fake_quantization import sqnr
from vllm_mindspore.quantization.ptq.linears import Tensors
from vllm_mindspore.quantization.ptq.report import CacheReport, Spread
from vllm_mindspore.quantization.ptq.statistics import InputStatistics

Floats = npt.NDArray[np.float32]

PROJECTIONS = ("k_proj", "v_proj")
"""Beside whose weights the tensors of keys and values are stored."""


class CacheStatistics:
    """What one layer caches."""

    def __init__(self, channels: int) -> None:
        self._seen = {name: InputStatistics(channels) for name in PROJECTIONS}

    def add(self, keys: Floats, values: Floats) -> None:
        """Takes in the rows of a batch, [T, kv_heads * head_dim] each."""
        for seen, rows in zip(self._seen.values(), (keys, values), strict=True):
            seen.add(rows)

    def quantized(self, attention: str) -> tuple[dict[str, Tensors], list[CacheReport]]:
        """Module -> tensors by last names, of the attention layer `attention`, and reports.

        Raises ValueError for keys or values that are not finite.
        """
        found, reports = {}, []
        for last, seen in self._seen.items():
            name, largest = f"{attention}.{last}", seen.largest()
            if not np.isfinite(largest).all():
                raise ValueError(
                    f"{name}: expected finite keys and values, found NaN or infinity among them"
                )
            found[name] = tensors(largest)
            scale: Floats = found[name][CACHE_SCALE].astype(np.float32, copy=False)
            rows = seen.rows()
            restored = primitives.quantize(rows, scale).astype(np.float32) * scale
            reports.append(CacheReport(name, Spread.of(scale), sqnr(rows, restored)))
        return found, reports


def tensors(largest: Floats) -> Tensors:
    """What the checkpoint holds of channels with these largest magnitudes: float32
    [kv_heads * head_dim]. A channel of zeros has the scale 1."""
    scale = np.where(largest == 0, 1.0, largest.astype(np.float64) / primitives.INT8_MAX)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    return {CACHE_SCALE: scale.astype(np.float32), CACHE_OFFSET: np.zeros(len(scale), np.float32)}
