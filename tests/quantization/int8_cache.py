# SPDX-License-Identifier: Apache-2.0
"""int8 key/value caches for the tests: scales of a float model, and transformers computing with
keys and values that were quantized and restored.

Transformers calls `_attention` in place of its own function, with keys as a cache holds them: after
norm and rotation. What a module does with them is its attribute of the name `_CACHE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.ptq import kv_cache
from vllm_mindspore.quantization.ptq.linears import Tensors
from vllm_mindspore.quantization.ptq.statistics import InputStatistics

Scales = Mapping[str, Tensors]
"""Name of a key or value projection -> its tensors."""

_NAME, _CACHE = "int8-cache", "cache_of_this_test"
Rows = Callable[[str, torch.Tensor], torch.Tensor]
"""A projection's last name and its rows [T, kv_heads * head_dim] -> those to attend to."""


def _attention(module: Any, query: Any, key: Any, value: Any, *args: Any, **options: Any) -> Any:
    change: Rows = getattr(module, _CACHE)
    both = []
    for name, heads in (("k_proj", key), ("v_proj", value)):
        batch, kv_heads, tokens, dim = heads.shape
        assert batch == 1
        rows = change(name, heads[0].transpose(0, 1).reshape(tokens, kv_heads * dim))
        both.append(rows.reshape(tokens, kv_heads, dim).transpose(0, 1)[None].to(heads.dtype))
    return sdpa_attention_forward(module, query, *both, *args, **options)


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)


def _change_rows(model: Any, make: Callable[[str], Rows]) -> None:
    model.set_attn_implementation(_NAME)
    for name, module in model.named_modules():
        if name.endswith(".self_attn"):
            setattr(module, _CACHE, make(name))


def install(model: Any, scales: Scales) -> None:
    """Lets a transformers model compute with keys and values from an int8 cache."""

    def make(attention: str) -> Rows:
        def change(name: str, rows: torch.Tensor) -> torch.Tensor:
            found: Any = scales[f"{attention}.{name}"]
            scale, offset = found["kv_cache_scale"], found["kv_cache_offset"]
            codes = primitives.quantize(rows.float().numpy(), scale, offset)
            return torch.from_numpy(primitives.restore(codes, scale, offset))

        return change

    _change_rows(model, make)


@torch.no_grad()
def calibrate(model: Any, prompts: list[list[int]]) -> dict[str, Tensors]:
    """Scales by the prompts' largest keys and values."""
    seen: dict[str, InputStatistics] = {}

    def make(attention: str) -> Rows:
        def watch(name: str, rows: torch.Tensor) -> torch.Tensor:
            full = f"{attention}.{name}"
            seen.setdefault(full, InputStatistics(rows.shape[1])).add(rows.numpy())
            return rows

        return watch

    _change_rows(model, make)
    for prompt in prompts:
        model(torch.tensor([prompt]))
    return {name: kv_cache.tensors(found.largest()) for name, found in seen.items()}


def shifted(scales: Scales, seed: int = 0) -> dict[str, Tensors]:
    """The same with whole offsets off the middle: some codes are cut, and a mistake shows."""
    rng = np.random.default_rng(seed)
    return {
        name: found
        | {
            "kv_cache_offset": rng.integers(-80, 81, len(found["kv_cache_scale"])).astype(
                np.float32
            )
        }
        for name, found in scales.items()
    }
