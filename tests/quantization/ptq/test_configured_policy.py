# SPDX-License-Identifier: Apache-2.0
"""Policies of Golden Stick's configurations."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
from mindspore import dtype

from vllm_mindspore.quantization.description import DYNAMIC, STATIC, WEIGHT_INT4, WEIGHT_INT8
from vllm_mindspore.quantization.ptq import configured_policy
from vllm_mindspore.quantization.ptq.config import (
    AWQConfig,
    BackendTarget,
    OutliersSuppressionType,
    PrecisionRecovery,
    PTQConfig,
    PTQMode,
    QuantGranularity,
    SmoothQuantConfig,
)
from vllm_mindspore.quantization.ptq.policy import FLOAT_POLICY, Policy, Suppression
from vllm_mindspore.quantization.ptq.smoothing import ALPHA_GRID

INT8 = {"weight_quant_dtype": dtype.int8, "act_quant_dtype": dtype.int8}
PER_TOKEN = {"act_quant_granularity": QuantGranularity.PER_TOKEN}
METHOD = OutliersSuppressionType
CASES: list[tuple[dict[str, Any], Policy]] = [
    ({}, Policy(WEIGHT_INT8)),
    ({"weight_quant_dtype": None}, FLOAT_POLICY),
    (INT8, Policy(STATIC)),
    (INT8 | PER_TOKEN, Policy(DYNAMIC)),
    (
        INT8 | {"outliers_suppression": METHOD.SMOOTH},
        Policy(STATIC, Suppression.SMOOTH, (0.5,)),
    ),
    (
        INT8 | {"outliers_suppression": METHOD.SMOOTH, "algo_args": SmoothQuantConfig(0.7)},
        Policy(STATIC, Suppression.SMOOTH, (0.7,)),
    ),
    (
        INT8 | {"outliers_suppression": METHOD.OUTLIER_SUPPRESSION_LITE},
        Policy(STATIC, Suppression.OSL, ALPHA_GRID),
    ),
    (
        INT8
        | {
            "outliers_suppression": METHOD.OUTLIER_SUPPRESSION_PLUS,
            "algo_args": {"smooth_alpha": [0.25, 0.5]},
        },
        Policy(STATIC, Suppression.OS_PLUS, (0.25, 0.5)),
    ),
    (
        {
            "weight_quant_dtype": dtype.qint4x2,
            "weight_quant_granularity": QuantGranularity.PER_GROUP,
            "group_size": 64,
        },
        Policy(WEIGHT_INT4, group_size=64),
    ),
]


@pytest.mark.parametrize(("values", "expected"), CASES)
def test_policies(values: dict[str, Any], expected: Policy) -> None:
    assert configured_policy.policy(PTQConfig(**values)) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": PTQMode.DEPLOY}, "mode=DEPLOY: not supported"),
        ({"backend": BackendTarget.NONE}, "backend=NONE: not supported"),
        (
            {
                "kvcache_quant_dtype": dtype.int8,
                "kvcache_quant_granularity": QuantGranularity.PER_TOKEN,
            },
            "kvcache_quant_granularity=PER_TOKEN: not supported",
        ),
        (
            INT8
            | {
                "kvcache_quant_dtype": dtype.int8,
                "outliers_suppression": METHOD.OUTLIER_SUPPRESSION_LITE,
            },
            "neither with OUTLIER_SUPPRESSION_LITE",
        ),
        (
            {"kvcache_quant_dtype": dtype.int8, "weight_quant_dtype": dtype.qint4x2},
            "neither with OUTLIER_SUPPRESSION_LITE",
        ),
        ({"precision_recovery": PrecisionRecovery.GPTQ}, "precision_recovery=GPTQ: not supported"),
        ({"outliers_suppression": METHOD.AWQ}, "outliers_suppression=AWQ: not supported"),
        ({"weight_clip": True}, "weight_clip=True: not supported"),
        (
            {"weight_quant_granularity": QuantGranularity.PER_GROUP, "group_size": 64},
            "int8 weights in groups: not supported",
        ),
        (
            {"weight_quant_dtype": None, "act_quant_dtype": dtype.int8},
            "act_quant_dtype needs a weight_quant_dtype",
        ),
        (
            INT8 | PER_TOKEN | {"outliers_suppression": METHOD.OUTLIER_SUPPRESSION_LITE},
            "OUTLIER_SUPPRESSION_LITE is for int8 weights with per-tensor",
        ),
        ({"algo_args": AWQConfig()}, "algo_args .*duo_scaling.* mean nothing"),
        (INT8 | {"algo_args": {"alpha": 0.5}}, "algo_args .*alpha.* mean nothing"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configured_policy.policy(PTQConfig(**values))


def test_layer_policies() -> None:
    config = PTQConfig(opname_blacklist=["lm_head"], **INT8)
    per_token = PTQConfig(**INT8, **PER_TOKEN)
    found = configured_policy.choice(config, OrderedDict({r".*\.w2.*": per_token, ".*wo": None}))
    assert found.default == Policy(STATIC)
    assert dict(found.by_pattern) == {r".*\.w2.*": Policy(DYNAMIC), ".*wo": FLOAT_POLICY}
    assert (found.skip, found.head) == (["lm_head"], False)
    assert configured_policy.choice(config, None).by_pattern == {}


def test_the_cache_is_for_the_whole_network() -> None:
    int8_cache: dict[str, Any] = {"kvcache_quant_dtype": dtype.int8}
    entry = PTQConfig(**INT8)
    found = configured_policy.choice(
        PTQConfig(weight_quant_dtype=None, **int8_cache), OrderedDict({".*wo": entry})
    )
    assert (found.default, found.int8_cache) == (FLOAT_POLICY, True)
    assert not configured_policy.choice(PTQConfig(), None).int8_cache
    with pytest.raises(ValueError, match="kvcache_quant_dtype is for the whole network"):
        configured_policy.choice(PTQConfig(), OrderedDict({".*": PTQConfig(**int8_cache)}))


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ({".*": None}, "expected an OrderedDict of pattern -> PTQConfig, found a dict"),
        (
            OrderedDict({".*": "int8"}),
            r"expected pattern -> PTQConfig or None, found '\.\*' -> str",
        ),
        (
            OrderedDict({".*": PTQConfig(opname_blacklist=["wo"])}),
            "opname_blacklist is for the whole network",
        ),
    ],
)
def test_layer_policies_that_are_none(policies: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configured_policy.choice(PTQConfig(), policies)
