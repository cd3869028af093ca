# SPDX-License-Identifier: Apache-2.0
"""Policies of layers, and what is refused before any work."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_mindspore.quantization.description import (
    DYNAMIC,
    FLOAT,
    SPARSE,
    STATIC,
    WEIGHT_INT4,
    WEIGHT_INT8,
    Tool,
)
from vllm_mindspore.quantization.ptq.float_checkpoint import FloatCheckpoint
from vllm_mindspore.quantization.ptq.policy import (
    Choice,
    Policy,
    Suppression,
    check_tool,
    policy,
    resolve,
)
from vllm_mindspore.quantization.ptq.smoothing import ALPHA_GRID
from vllm_mindspore.quantization.ptq.sparsity import Method, Pattern, Sparsity

SMOOTH = policy(STATIC, Suppression.SMOOTH)
PER_TOKEN = policy(DYNAMIC, Suppression.NONE)


def test_default_patterns_and_skipped_layers(tiny: FloatCheckpoint) -> None:
    patterns = {r".*\.w2.*": PER_TOKEN, r".*": SMOOTH}
    choice = Choice(policy(WEIGHT_INT8, Suppression.NONE), patterns, ["lm_head", "layers.3."])
    found = resolve(tiny.config, choice)
    assert len(found) == 28
    for name, chosen in found.items():
        if ".layers.3." in name:
            assert chosen.kind == FLOAT
        else:
            assert chosen == (PER_TOKEN if name.endswith("down_proj") else SMOOTH)


def test_a_quantized_head_has_no_suppression(tiny: FloatCheckpoint) -> None:
    found = resolve(tiny.config, Choice(SMOOTH, {}, [], head=True))
    assert found["lm_head"] == policy(STATIC, Suppression.NONE)
    assert found["model.layers.0.self_attn.q_proj"] == SMOOTH


def test_sparse_layers_beside_others_and_a_dense_head(tiny: FloatCheckpoint) -> None:
    sparse = policy(SPARSE, Suppression.SMOOTH, sparsity=Sparsity(0.5, Method.WANDA))
    assert not sparse.needs_products
    found = resolve(tiny.config, Choice(sparse, {".*down_proj": PER_TOKEN}, ["o_proj"], head=True))
    assert found["lm_head"] == policy(STATIC, Suppression.NONE)
    assert found["model.layers.0.self_attn.q_proj"] == sparse
    assert found["model.layers.0.self_attn.o_proj"].kind == FLOAT
    assert found["model.layers.0.mlp.down_proj"] == PER_TOKEN
    assert policy(SPARSE, Suppression.NONE, sparsity=Sparsity()).needs_products


def test_a_pattern_that_a_layer_does_not_have(tiny: FloatCheckpoint) -> None:
    fives = Sparsity(0.4, Method.WANDA, Pattern(3, 5))
    choice = Choice(policy(SPARSE, Suppression.NONE, sparsity=fives), {}, ["lm_head"])
    with pytest.raises(ValueError, match="q_proj has 256 input channels, no multiple of the 5"):
        resolve(tiny.config, choice)


def test_methods_bring_their_exponents() -> None:
    assert SMOOTH.alphas == (0.5,)
    assert policy(STATIC, Suppression.OSL).alphas == ALPHA_GRID
    assert ALPHA_GRID[0] == 0
    assert ALPHA_GRID[-1] == 0.95


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"by_pattern": {r".*w9.*": PER_TOKEN}}, r"policy '\.\*w9\.\*' matches no linear layer"),
        ({"by_pattern": {"(": PER_TOKEN}}, r"policy '\(' is no regular expression"),
        ({"skip": ["head", "o_prj"]}, "'o_prj', which is to be skipped, is part of no"),
        ({"skip": [""]}, "'', which is to be skipped"),
        ({"skip": ["lm_head"], "head": True}, "choose one"),
        ({"by_pattern": {".*q_proj": PER_TOKEN}}, "q_proj is to be W8A8_DYNAMIC and .*k_proj W8A8"),
        ({"skip": ["up_proj"]}, "gate_proj is to be W8A8 and .*up_proj FLOAT"),
        ({"skip": ["proj"]}, "no linear layer is left"),
        ({"by_pattern": {".*o_proj": Policy(WEIGHT_INT4, group_size=256)}}, None),
        ({"by_pattern": {".*": policy(STATIC, Suppression.NONE)}}, None),
    ],
)
def test_choices_that_do_not_fit(
    choice: dict[str, Any], message: str | None, tiny: FloatCheckpoint
) -> None:
    made = Choice(**({"default": SMOOTH, "by_pattern": {}} | choice))
    if message is None:
        resolve(tiny.config, made)
        return
    with pytest.raises(ValueError, match=message):
        resolve(tiny.config, made)


@pytest.mark.parametrize(
    ("kind", "method", "group_size", "message"),
    [
        (WEIGHT_INT8, Suppression.SMOOTH, 0, "'smooth' is for quantized activations; W8A16"),
        (DYNAMIC, Suppression.OS_PLUS, 0, r"'os\+' shifts .* W8A8_DYNAMIC"),
        (WEIGHT_INT8, Suppression.NONE, 64, "group size of 64 is for w4a16"),
        (WEIGHT_INT4, Suppression.NONE, 32, "group size 32: expected one of 64, 128, 256"),
    ],
)
def test_policies_that_do_not_fit(
    kind: str, method: Suppression, group_size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        policy(kind, method, group_size)


def test_exponents_are_from_0_to_1() -> None:
    with pytest.raises(ValueError, match="exponents"):
        Policy(STATIC, Suppression.SMOOTH, (1.5,))


def test_groups_must_divide_the_channels(tiny: FloatCheckpoint) -> None:
    """hidden 256, but no layer of the tiny model has a size that 256 does not divide; 768 / 256."""
    resolve(tiny.config, Choice(Policy(WEIGHT_INT4, group_size=256), {}))
    from dataclasses import replace

    odd = replace(tiny.config, intermediate_size=700)
    with pytest.raises(ValueError, match="down_proj has 700 input channels, no multiple"):
        resolve(odd, Choice(Policy(WEIGHT_INT4, group_size=128), {}))
    odd = replace(tiny.config, intermediate_size=701)
    with pytest.raises(ValueError, match="gate_proj has 701 output channels"):
        resolve(odd, Choice(Policy(WEIGHT_INT4), {}))


def test_int4_is_not_written_for_modelslim() -> None:
    with pytest.raises(ValueError, match="use --writer golden-stick"):
        check_tool({"a": Policy(WEIGHT_INT4)}, Tool.MODELSLIM)
    check_tool({"a": Policy(WEIGHT_INT8)}, Tool.MODELSLIM)
