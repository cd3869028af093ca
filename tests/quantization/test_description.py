# SPDX-License-Identifier: Apache-2.0
"""Description files: what each module is, and what contradicts itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vllm_mindspore.quantization.description import (
    DYNAMIC,
    FLOAT,
    GROUP_SIZES,
    STATIC,
    WEIGHT_INT4,
    Tool,
    parse,
)

GOLDEN_STICK = Path("folder/quantization_description.json")
MODELSLIM = Path("folder/quant_model_description_w8a8.json")


def test_tensors_of_a_module_share_its_type() -> None:
    found = parse(
        GOLDEN_STICK,
        {"a.q_proj.weight": "W8A8", "a.q_proj.deq_scale": "W8A8", "norm.weight": "FLOAT"},
    )
    assert found.module_types() == {"a.q_proj": STATIC, "norm": FLOAT}


@pytest.mark.parametrize(
    ("file", "tool"), [(GOLDEN_STICK, Tool.GOLDEN_STICK), (MODELSLIM, Tool.MODELSLIM)]
)
def test_the_name_of_the_file_tells_the_tool(file: Path, tool: Tool) -> None:
    assert parse(file, {}).tool is tool


def test_what_modelslim_says_of_the_whole_model_is_no_tensor() -> None:
    found = parse(MODELSLIM, {"model_quant_type": "W8A8", "group_size": 0, "version": "1.0.0"})
    assert found.module_types() == {}
    assert found.keys["group_size"] == 0


def test_golden_sticks_label_of_dynamic_biases() -> None:
    types = {"q.weight": "W8A8_DYNAMIC", "q.weight_scale": "W8A8_DYNAMIC", "q.bias": "W4A8_DYNAMIC"}
    assert parse(GOLDEN_STICK, types).module_types() == {"q": DYNAMIC}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"q.weight": 8}, "'q.weight': expected the name of a type, found int 8"),
        ({"q.weight": ["W8A8"]}, "expected the name of a type, found list"),
    ],
)
def test_values_that_are_no_types(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        parse(GOLDEN_STICK, content)
    assert str(GOLDEN_STICK) in str(refusal.value)


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ({"q.weight": "W8A8", "q.deq_scale": "FLOAT"}, "tensors of q have several types.*expected"),
        (
            {"q.weight": "W8A8SC"},
            "q has the type 'W8A8SC'; supported: FLOAT, W8A8, W8A8S, W8A8_DYNAMIC, W8A16, W4A16",
        ),
        ({"q.weight": "w8a8"}, "q has the type 'w8a8'"),
    ],
)
def test_types_that_do_not_fit(types: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        parse(GOLDEN_STICK, types).module_types()
    assert str(GOLDEN_STICK) in str(refusal.value)


@pytest.mark.parametrize("file", [GOLDEN_STICK, MODELSLIM])
def test_int4_of_either_tool(file: Path) -> None:
    assert parse(file, {"q.weight": "W4A16"}).module_types() == {"q": WEIGHT_INT4}


def test_weights_alone_want_half_precision() -> None:
    found = parse(GOLDEN_STICK, {"q.weight": "W8A16", "o.weight": "W4A16", "v.weight": "W8A8"})
    found.check("bfloat16")
    found.check("float16")
    with pytest.raises(ValueError, match=r"W4A16, W8A16 are computed in .*; found float32. Use"):
        found.check("float32")
    parse(GOLDEN_STICK, {"q.weight": "W8A8"}).check("float32")


@pytest.mark.parametrize("stated", [0, None, 64, 128, 256])
def test_group_sizes(stated: int | None) -> None:
    found = parse(MODELSLIM, {"q.weight": "W8A16", "group_size": stated})
    assert found.group_sizes() == ((stated,) if stated else GROUP_SIZES)


@pytest.mark.parametrize("stated", [32, -64, "128", [64], 1.5])
def test_group_sizes_that_cannot_be(stated: object) -> None:
    found = parse(MODELSLIM, {"q.weight": "W8A16", "group_size": stated})
    with pytest.raises(ValueError, match=r"group_size: expected one of 64, 128, 256, or 0"):
        found.check("bfloat16")
    parse(MODELSLIM, {"q.weight": "W8A8", "group_size": stated}).check("bfloat16")  # has none
