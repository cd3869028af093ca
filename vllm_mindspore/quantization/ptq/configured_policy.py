# SPDX-License-Identifier: Apache-2.0
"""From Golden Stick's configuration to policies of linear layers; what is not supported is refused
by name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from vllm_mindspore.quantization.description import DYNAMIC, STATIC, WEIGHT_INT4, WEIGHT_INT8
from vllm_mindspore.quantization.ptq.config import (
    INT4,
    BackendTarget,
    OutliersSuppressionType,
    PrecisionRecovery,
    PTQConfig,
    PTQMode,
    QuantGranularity,
)
from vllm_mindspore.quantization.ptq.policy import FLOAT_POLICY, Choice, Policy, Suppression
from vllm_mindspore.quantization.ptq.smoothing import ALPHA, ALPHA_GRID

_METHODS = {
    OutliersSuppressionType.NONE: Suppression.NONE,
    OutliersSuppressionType.SMOOTH: Suppression.SMOOTH,
    OutliersSuppressionType.OUTLIER_SUPPRESSION_LITE: Suppression.OSL,
    OutliersSuppressionType.OUTLIER_SUPPRESSION_PLUS: Suppression.OS_PLUS,
}


def choice(config: PTQConfig, layer_policies: Mapping[str, PTQConfig | None] | None) -> Choice:
    """What a PTQ object asks for.

    Raises:
        ValueError: something that is not supported, or policies that are none.
    """
    policies = OrderedDict() if layer_policies is None else layer_policies
    if not isinstance(policies, OrderedDict):
        raise ValueError(
            "layer_policies: expected an OrderedDict of pattern -> PTQConfig, found a "
            f"{type(policies).__name__}"
        )
    by_pattern = {}
    for pattern, entry in policies.items():
        if not isinstance(pattern, str) or not isinstance(entry, PTQConfig | None):
            raise ValueError(
                f"layer_policies: expected pattern -> PTQConfig or None, found {pattern!r} -> "
                f"{type(entry).__name__}"
            )
        if entry is not None and entry.opname_blacklist not in ([], config.opname_blacklist):
            raise ValueError(
                f"layer_policies[{pattern!r}]: opname_blacklist is for the whole network; give it "
                "to the PTQConfig of PTQ(config=...)"
            )
        if entry is not None and entry.kvcache not in (None, config.kvcache):
            raise ValueError(
                f"layer_policies[{pattern!r}]: kvcache_quant_dtype is for the whole network; give "
                "it to the PTQConfig of PTQ(config=...)"
            )
        by_pattern[pattern] = FLOAT_POLICY if entry is None else policy(entry)
    blacklist, int8_cache = config.opname_blacklist, config.kvcache is not None
    return Choice(policy(config), by_pattern, blacklist, int8_cache=int8_cache)


def policy(config: PTQConfig) -> Policy:
    """That of one configuration.

    Raises:
        ValueError: something that is not supported, or does not go together.
    """
    _refuse_unsupported(config)
    kind = _kind(config)
    if kind is None:
        return FLOAT_POLICY
    method = _METHODS[config.outliers_suppression]
    if method is Suppression.OSL and kind != STATIC:
        raise ValueError(
            "PTQConfig: OUTLIER_SUPPRESSION_LITE is for int8 weights with per-tensor int8 "
            f"activations, found {kind}"
        )
    if config.kvcache is not None and (method is Suppression.OSL or config.weight == INT4):
        raise ValueError(
            "PTQConfig: kvcache_quant_dtype=int8: Golden Stick combines it neither with "
            "OUTLIER_SUPPRESSION_LITE nor with int4 weights; `vllm-mindspore quantize` does"
        )
    return Policy(kind, method, _alphas(config, method), config.group_size)


def _kind(config: PTQConfig) -> str | None:
    if config.weight is None:
        if config.activation is not None:
            raise ValueError("PTQConfig: act_quant_dtype needs a weight_quant_dtype")
        return None
    if config.activation is None:
        return WEIGHT_INT4 if config.weight == INT4 else WEIGHT_INT8
    per_token = config.act_quant_granularity is QuantGranularity.PER_TOKEN
    return DYNAMIC if per_token else STATIC


def _alphas(config: PTQConfig, method: Suppression) -> tuple[float, ...]:
    arguments = dict(config.algo_args)
    found: tuple[float, ...] = (ALPHA,)
    if method is Suppression.SMOOTH:
        found = (float(arguments.pop("alpha", ALPHA)),)
    if method in (Suppression.OSL, Suppression.OS_PLUS):
        found = tuple(map(float, arguments.pop("smooth_alpha", ALPHA_GRID)))
    if arguments:
        raise ValueError(
            f"PTQConfig: algo_args {sorted(arguments)} mean nothing with "
            f"outliers_suppression={config.outliers_suppression.name}"
        )
    return found


def _refuse_unsupported(config: PTQConfig) -> None:
    refused = {
        "mode=DEPLOY": config.mode is PTQMode.DEPLOY,
        "backend=NONE": config.backend is BackendTarget.NONE,
        "kvcache_quant_granularity=PER_TOKEN": (
            config.kvcache_quant_granularity is QuantGranularity.PER_TOKEN
        ),
        "precision_recovery=GPTQ": config.precision_recovery is PrecisionRecovery.GPTQ,
        "outliers_suppression=AWQ": config.outliers_suppression is OutliersSuppressionType.AWQ,
        "weight_clip=True": config.weight_clip,
        "int8 weights in groups": config.weight != INT4 and config.group_size > 0,
    }
    found = [name for name, given in refused.items() if given]
    if found:
        raise ValueError(f"PTQConfig: {', '.join(found)}: not supported here")
