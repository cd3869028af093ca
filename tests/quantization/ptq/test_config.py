# SPDX-License-Identifier: Apache-2.0
"""Golden Stick's names, order, defaults and checks."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from mindspore import dtype

from vllm_mindspore.quantization.ptq import (
    AWQConfig,
    BackendTarget,
    GPTQQuantConfig,
    OutliersSuppressionType,
    PrecisionRecovery,
    PTQConfig,
    PTQMode,
    QuantGranularity,
    SmoothQuantConfig,
)

RunPython = Callable[..., subprocess.CompletedProcess[str]]

DEFAULTS = {
    "mode": PTQMode.QUANTIZE,
    "backend": BackendTarget.ASCEND,
    "opname_blacklist": [],
    "algo_args": {},
    "weight_quant_dtype": dtype.int8,
    "kvcache_quant_dtype": None,
    "act_quant_dtype": None,
    "precision_recovery": PrecisionRecovery.NONE,
    "outliers_suppression": OutliersSuppressionType.NONE,
    "weight_quant_granularity": QuantGranularity.PER_CHANNEL,
    "kvcache_quant_granularity": QuantGranularity.PER_CHANNEL,
    "act_quant_granularity": QuantGranularity.PER_TENSOR,
    "group_size": 0,
    "weight_clip": False,
}


def test_fields_in_order_with_their_defaults() -> None:
    found = PTQConfig()
    assert [field.name for field in dataclasses.fields(PTQConfig)] == list(DEFAULTS)
    assert vars(found) == DEFAULTS
    assert PTQConfig(PTQMode.DEPLOY, BackendTarget.NONE, ["a"]).opname_blacklist == ["a"]


def test_members_of_the_enumerations() -> None:
    assert {m.name: m.value for m in PTQMode} == {"QUANTIZE": "quantize", "DEPLOY": "deploy"}
    assert {m.name: m.value for m in BackendTarget} == {"NONE": "none", "ASCEND": "ascend"}
    assert {m.name: m.value for m in OutliersSuppressionType} == {
        "SMOOTH": "smooth",
        "AWQ": "awq",
        "OUTLIER_SUPPRESSION_PLUS": "outlier-suppression+",
        "OUTLIER_SUPPRESSION_LITE": "outlier-suppression-lite",
        "NONE": "none",
    }
    assert [m.value for m in PrecisionRecovery] == ["gptq", "none"]
    assert [m.name for m in QuantGranularity] == [
        "PER_TENSOR",
        "PER_CHANNEL",
        "PER_TOKEN",
        "PER_GROUP",
    ]


def test_members_from_strings() -> None:
    assert OutliersSuppressionType.from_str("smooth") is OutliersSuppressionType.SMOOTH
    assert OutliersSuppressionType.from_str("?") is OutliersSuppressionType.NONE
    assert QuantGranularity.from_str("per_token") is QuantGranularity.PER_TOKEN
    assert QuantGranularity.from_str("?") is None
    assert PrecisionRecovery.from_str("gptq") is PrecisionRecovery.GPTQ
    assert PrecisionRecovery.from_str("?") is PrecisionRecovery.NONE


def test_arguments_of_algorithms_become_dicts() -> None:
    assert PTQConfig(algo_args=SmoothQuantConfig()).algo_args == {"alpha": 0.5}
    assert PTQConfig(algo_args=GPTQQuantConfig()).algo_args == {
        "block_size": 128,
        "desc_act": False,
        "damp_percent": 0.01,
        "static_groups": False,
    }
    awq = PTQConfig(algo_args=AWQConfig()).algo_args
    assert awq["duo_scaling"] is True
    assert awq["smooth_alpha"] == [i / 20 for i in range(20)]
    assert awq["weight_clip_ratio"] == [1 - i / 20 for i in range(10)]


INT8 = {"weight_quant_dtype": dtype.int8, "act_quant_dtype": dtype.int8}
PER_TOKEN = {"act_quant_granularity": QuantGranularity.PER_TOKEN}
GROUPS = {"weight_quant_granularity": QuantGranularity.PER_GROUP, "group_size": 64}
GPTQ = {
    "precision_recovery": PrecisionRecovery.GPTQ,
    "algo_args": GPTQQuantConfig(desc_act=True, static_groups=True),
}


@pytest.mark.parametrize(
    "values",
    [
        INT8,
        INT8 | PER_TOKEN,
        {"weight_quant_dtype": dtype.qint4x2} | GROUPS,
        {"weight_quant_dtype": None},
        {"weight_quant_dtype": dtype.qint4x2, "act_quant_dtype": dtype.int8} | PER_TOKEN | GPTQ,
        {"kvcache_quant_dtype": dtype.int8},
    ],
)
def test_what_goes_together(values: dict[str, Any]) -> None:
    PTQConfig(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight_quant_dtype": dtype.int16}, "weight_quant_dtype=int16: expected one of int8"),
        ({"act_quant_dtype": dtype.float16}, "act_quant_dtype=float16: expected one of int8"),
        ({"kvcache_quant_dtype": dtype.qint4x2}, "kvcache_quant_dtype=.*expected one of int8"),
        ({"act_quant_granularity": QuantGranularity.PER_CHANNEL}, "act_quant_granularity=PER_CH"),
        ({"weight_quant_granularity": QuantGranularity.PER_TOKEN}, "weight_quant_granularity=PER"),
        (
            {"kvcache_quant_granularity": QuantGranularity.PER_TENSOR},
            "kvcache_quant_granularity=PER_TENSOR",
        ),
        (PER_TOKEN, "PER_TOKEN needs act_quant_dtype=int8"),
        (
            {"kvcache_quant_granularity": QuantGranularity.PER_TOKEN},
            "PER_TOKEN needs kvcache_quant_dtype",
        ),
        (GROUPS | {"group_size": 32}, "group_size=32: PER_GROUP weights need one of 64, 128, 256"),
        ({"group_size": 64}, "group_size=64 needs weight_quant_granularity=PER_GROUP"),
        (INT8 | GROUPS, "int8 activations with int8 weights need PER_CHANNEL"),
        (
            {"weight_quant_dtype": dtype.qint4x2, "act_quant_dtype": dtype.int8},
            "int8 activations with int4 weights need PER_TOKEN",
        ),
        ({"mode": "quantize"}, "mode='quantize': expected a PTQMode"),
        ({"opname_blacklist": "lm_head"}, "opname_blacklist='lm_head': expected a list"),
    ],
)
def test_what_does_not(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"PTQConfig: .*{message}"):
        PTQConfig(**values)


def test_names_do_not_import_mindspore(run_python: RunPython) -> None:
    run_python(
        "import sys\n"
        "from vllm_mindspore.quantization.ptq import PTQMode, QuantGranularity, AWQConfig\n"
        "assert 'mindspore' not in sys.modules"
    )
