# SPDX-License-Identifier: Apache-2.0
"""What the key/value cache holds: the model's dtype, or int8 codes (C8) if a description says so.

Codes are clip(round(x / scale + offset)); each channel has a scale and an offset in the checkpoint.
Imports no MindSpore: the front end checks with it.
"""

from __future__ import annotations

import torch

from vllm_mindspore.quantization.description import C8, CACHE_KEYS, CACHE_SCALE, Description

# Their effect would be missing, so they are refused unless they are null.
_NOT_HERE = {
    "fa_quant_type": "attention in int8",
    "reduce_quant_type": "sums between ranks in int8",
}


def is_int8(description: Description | None) -> bool:
    """Whether keys and values are cached as int8.

    Raises:
        ValueError: the description asks for another kind of cache or of attention, or has scales
            of a cache that it does not name.
    """
    if description is None:
        return False
    for key, meaning in _NOT_HERE.items():
        if (value := description.keys.get(key)) is not None:
            raise ValueError(
                f"{description.file}: {key} is {value!r:.40}: {meaning} is not supported by "
                "vllm-mindspore. Quantize the model without it"
            )
    kinds = {key: description.keys.get(key) for key in CACHE_KEYS}
    for key, kind in kinds.items():
        if kind not in (None, C8):
            raise ValueError(
                f"{description.file}: {key} is {kind!r:.40}; supported: {C8!r}, or null for a "
                "cache in the model's dtype"
            )
    int8 = C8 in kinds.values()
    scale = next((name for name in description.types if name.endswith(f".{CACHE_SCALE}")), None)
    if scale is not None and not int8:
        raise ValueError(
            f"{description.file} lists {scale:.200}, a scale of an int8 key/value cache, but "
            f'{" and ".join(CACHE_KEYS)} do not say {C8!r}: add "{CACHE_KEYS[0]}": "{C8}"'
        )
    return int8


def check(description: Description | None, model: torch.dtype, asked: str) -> None:
    """What --kv-cache-dtype asks for must be what the checkpoint gives.

    Raises:
        ValueError: it is not, or an int8 cache is to serve a float32 model.
    """
    int8, dtype = is_int8(description), str(model).removeprefix("torch.")
    if int8 and dtype == "float32":
        assert description is not None
        raise ValueError(
            f"{description.file} gives the model an int8 key/value cache ({C8}), which serves "
            "float16 and bfloat16; found dtype float32. Use --dtype bfloat16 or float16"
        )
    held = "int8" if int8 else dtype
    if asked in ("auto", held):
        return
    why = f"the cache has the dtype of the model ({dtype})"
    if int8:
        why = f"the checkpoint has the scales of an int8 cache ({C8})"
    elif asked.startswith("int8"):
        why += f", and int8 takes scales from a checkpoint whose description says {C8}"
    raise ValueError(
        f"kv_cache_dtype={asked!r} is not supported by vllm-mindspore: {why}. "
        "Use --kv-cache-dtype auto."
    )


def dtype_of(model: torch.dtype, *, int8: bool) -> torch.dtype:
    """Of the cache's elements."""
    return torch.int8 if int8 else model
