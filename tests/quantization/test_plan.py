# SPDX-License-Identifier: Apache-2.0
"""Schemes are chosen by exact names, one for layers that are computed together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.quantization import compressed
from tests.quantization.compressed import quantization_config
from vllm_mindspore.quantization import compressed_tensors
from vllm_mindspore.quantization.description import Tool, parse
from vllm_mindspore.quantization.plan import DescribedPlan, FloatPlan, Plan, plan_of
from vllm_mindspore.quantization.schemes.compressed_dynamic import CompressedDynamic
from vllm_mindspore.quantization.schemes.compressed_static import CompressedStatic
from vllm_mindspore.quantization.schemes.float_linear import Float
from vllm_mindspore.quantization.schemes.w4a16 import W4A16
from vllm_mindspore.quantization.schemes.w8a8 import W8A8
from vllm_mindspore.quantization.schemes.w8a8_dynamic import W8A8Dynamic
from vllm_mindspore.quantization.schemes.w8a16 import W8A16
from vllm_mindspore.quantization.schemes.weight_scales import Form

FILE = Path("folder/quant_model_description.json")
TYPES = {
    "l.0.q.weight": "W8A8",
    "l.0.k.weight": "W8A8",
    "l.0.v.weight": "W8A8_DYNAMIC",
    "l.0.o.weight": "W8A8_DYNAMIC",
    "l.0.up.weight": "FLOAT",
}


def plan() -> DescribedPlan:
    return DescribedPlan(parse(FILE, dict(TYPES)))


def compressed_plan() -> Plan:
    groups = [(["re:.*[qk]$"], compressed.ZERO_POINT), (["Linear"], compressed.DYNAMIC)]
    config = compressed.config(groups, ["l.0.up"])
    return plan_of(
        compressed_tensors.parse(Path("folder/config.json"), quantization_config(config))
    )


def test_every_layer_of_plain_weights_is_float() -> None:
    assert isinstance(FloatPlan().scheme(["anything"]), Float)
    assert not FloatPlan().quantized


def test_schemes_by_name() -> None:
    assert plan().scheme(["l.0.q", "l.0.k"]) == W8A8(Tool.MODELSLIM)
    assert isinstance(plan().scheme(["l.0.o"]), W8A8Dynamic)
    assert isinstance(plan().scheme(["l.0.up"]), Float)
    assert plan().summary == "W8A8/W8A8_DYNAMIC"


@pytest.mark.parametrize("tool", list(Tool))
def test_sparse_weights_that_are_not_compressed_are_w8a8(tool: Tool) -> None:
    file = {Tool.GOLDEN_STICK: "quantization_description.json"}.get(tool, FILE.name)
    found = DescribedPlan(parse(FILE.with_name(file), {"q.weight": "W8A8S"}))
    assert found.scheme(["q"]) == W8A8(tool)
    assert found.summary == "W8A8S"


@pytest.mark.parametrize("name", ["l.0.down", "l.0", "l.0.q.weight", "0.q", "l.0.qq"])
def test_names_match_exactly(name: str) -> None:
    with pytest.raises(ValueError, match=f"does not say what {name} is.*{name}.weight"):
        plan().scheme([name])


def test_layers_of_one_input_have_one_type() -> None:
    with pytest.raises(ValueError, match=r"l.0.k: W8A8, l.0.v: W8A8_DYNAMIC.*quantize them alike"):
        plan().scheme(["l.0.q", "l.0.k", "l.0.v"])


def test_weights_alone() -> None:
    """Golden Stick stores scales of groups turned; the description may state the size."""
    sizes = (64, 128, 256)
    folder = Path("folder")
    types = {"q.weight": "W8A16", "o.weight": "W4A16"}
    found = DescribedPlan(parse(folder / "quantization_description.json", types))
    assert found.scheme(["q"]) == W8A16(Form(sizes, turned=True))
    assert found.scheme(["o"]) == W4A16(Form(sizes, turned=True), Tool.GOLDEN_STICK)
    found = DescribedPlan(parse(FILE, {**types, "group_size": 64}))
    form = Form((64,), turned=False, subtracted=True)
    assert found.scheme(["q"]) == W8A16(form)
    assert found.scheme(["o"]) == W4A16(form, Tool.MODELSLIM)


def test_layers_of_fused_models_say_so() -> None:
    fused = parse(FILE, {"l.0.qkv_proj.weight": "W8A8"})
    with pytest.raises(ValueError, match=r"l.0.q_proj is: but names l.0.qkv_proj: ModelSlim wrote"):
        DescribedPlan(fused).scheme(["l.0.q_proj"])


def test_plans_by_what_a_folder_says() -> None:
    assert isinstance(plan_of(None), FloatPlan)
    assert isinstance(plan_of(parse(FILE, dict(TYPES))), DescribedPlan)


def test_groups_of_compressed_tensors() -> None:
    plan = compressed_plan()
    assert plan.quantized
    assert plan.summary == "W8A8/W8A8_DYNAMIC"
    assert plan.scheme(["l.0.q", "l.0.k"]) == CompressedStatic(zero_point=True)
    assert isinstance(plan.scheme(["l.0.v"]), CompressedDynamic)
    assert isinstance(plan.scheme(["l.0.up"]), Float)
    with pytest.raises(ValueError, match=r"config.json: layers of .*l.0.k: W8A8, l.0.v: W8A8_DYN"):
        plan.scheme(["l.0.k", "l.0.v"])
