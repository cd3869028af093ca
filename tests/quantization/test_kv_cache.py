# SPDX-License-Identifier: Apache-2.0
"""What a description says of the cache, and what --kv-cache-dtype and --dtype may say beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from vllm_mindspore.quantization import kv_cache
from vllm_mindspore.quantization.description import FLOAT, STATIC, Description, parse

FILE = Path("folder/quant_model_description.json")
SCALES = {f"l.0.k_proj.kv_cache_{part}": "W8A8" for part in ("scale", "offset")}


def described(**keys: object) -> Description:
    scales = SCALES if "C8" in keys.values() else {}
    return parse(FILE, {"l.0.k_proj.weight": "FLOAT", **scales, **keys})


@pytest.mark.parametrize(
    ("keys", "int8"),
    [
        ({}, False),
        ({"kv_cache_type": "C8"}, True),
        ({"kv_quant_type": "C8"}, True),
        ({"kv_cache_type": "C8", "kv_quant_type": None, "fa_quant_type": None}, True),
        ({"kv_quant_type": None, "reduce_quant_type": None, "group_size": 0}, False),
    ],
)
def test_a_key_says_it(keys: dict[str, object], int8: bool) -> None:
    assert kv_cache.is_int8(described(**keys)) == int8


def test_plain_weights_have_a_float_cache() -> None:
    assert not kv_cache.is_int8(None)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kv_cache_type": "C4"}, "kv_cache_type is 'C4'; supported: 'C8', or null"),
        ({"kv_quant_type": 8}, "kv_quant_type is 8; supported"),
        ({"kv_cache_type": "C8", "kv_quant_type": ""}, "kv_quant_type is ''; supported"),
        ({"fa_quant_type": "FAQuant"}, "fa_quant_type is 'FAQuant': attention in int8 is not supp"),
        ({"reduce_quant_type": "per_channel"}, "reduce_quant_type is 'per_channel': sums between"),
    ],
)
def test_keys_that_ask_for_something_else_are_refused(
    keys: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{FILE}: {message}")):
        kv_cache.is_int8(described(**keys))


def test_scales_that_no_key_speaks_of_are_refused() -> None:
    message = 'l.0.k_proj.kv_cache_scale, a scale of an int8.*add "kv_cache_type": "C8"'
    for keys in ({}, {"kv_cache_type": None}):
        with pytest.raises(ValueError, match=message):
            kv_cache.is_int8(parse(FILE, {**SCALES, **keys}))


@pytest.mark.parametrize("kind", ["W8A8", "C8", "FLOAT"])
def test_labels_of_scales_say_nothing_about_their_projection(kind: str) -> None:
    types = {**dict.fromkeys(SCALES, kind), "l.0.k_proj.weight": "W8A8", "l.0.q.weight": "FLOAT"}
    assert parse(FILE, types).module_types() == {"l.0.k_proj": STATIC, "l.0.q": FLOAT}


C8 = {"kv_cache_type": "C8"}


@pytest.mark.parametrize(
    ("keys", "model", "asked", "message"),
    [
        (C8, torch.float32, "auto", r"int8 key/value cache \(C8\).*found dtype float32. Use --dty"),
        (C8, torch.bfloat16, "bfloat16", r"='bfloat16' is not supp.*scales of an int8 cache.*auto"),
        (C8, torch.bfloat16, "fp8", "='fp8' is not supported.*Use --kv-cache-dtype auto"),
        ({}, torch.bfloat16, "int8", r"='int8' is not.*\(bfloat16\), and int8 takes scales from a"),
        (
            {},
            torch.float16,
            "int8_per_token_head",
            "int8 takes scales from a checkpoint whose desc",
        ),
        ({}, torch.float16, "bfloat16", r"the cache has the dtype of the model \(float16\)\. Use"),
    ],
)
def test_contradictions_are_refused(
    keys: dict[str, object], model: torch.dtype, asked: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kv_cache.check(described(**keys), model, asked)


@pytest.mark.parametrize("model", [torch.float16, torch.bfloat16])
def test_what_fits(model: torch.dtype) -> None:
    for asked in ("auto", "int8"):
        kv_cache.check(described(**C8), model, asked)
    for asked in ("auto", str(model).removeprefix("torch.")):
        kv_cache.check(described(), model, asked)
        kv_cache.check(None, model, asked)


def test_codes_take_a_byte() -> None:
    assert kv_cache.dtype_of(torch.bfloat16, int8=True) == torch.int8
    assert kv_cache.dtype_of(torch.bfloat16, int8=False) == torch.bfloat16
