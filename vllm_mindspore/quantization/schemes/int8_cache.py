# SPDX-License-Identifier: Apache-2.0
"""C8: the scales of an int8 key/value cache, one and an offset for each channel of all kv heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vllm_mindspore import bridge
from vllm_mindspore.quantization.description import CACHE_OFFSET, CACHE_SCALE
from vllm_mindspore.quantization.schemes import tensors
from vllm_mindspore.quantization.schemes.base import TensorSource

if TYPE_CHECKING:
    from mindspore import Parameter


def scales(source: TensorSource, attention: str, channels: int) -> Parameter:
    """float32 [4, channels] of the attention layer `attention`: key scale, key offset, value scale,
    value offset. Notes what is missing or different with the source."""
    rows = []
    for projection in ("k_proj", "v_proj"):
        name = f"{attention}.{projection}"
        scale = _read(source, f"{name}.{CACHE_SCALE}", channels)
        tensors.require(
            source, f"{name}.{CACHE_SCALE}", scale, "finite numbers above 0", tensors.is_positive
        )
        rows += [scale, _read(source, f"{name}.{CACHE_OFFSET}", channels)]
    return bridge.parameter(f"{attention}.kv_cache", torch.stack(rows))


def _read(source: TensorSource, name: str, channels: int) -> torch.Tensor:
    shapes = [(channels,), (channels, 1), (1, channels), (1,)]
    stored = source.stored(name, shapes, [*tensors.FLOATS, torch.int8, torch.int32])
    return stored.reshape(-1).to(torch.float32).expand(channels)
