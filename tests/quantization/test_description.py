# SPDX-License-Identifier: Apache-2.0
"""Description files: what each module is, and what contradicts itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vllm_mindspore.quantization.description import DYNAMIC, FLOAT, STATIC, Tool, parse

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
        ({"q.weight": "W8A16"}, "q has the type 'W8A16'; supported: FLOAT, W8A8, W8A8_DYNAMIC"),
        ({"q.weight": "w8a8"}, "q has the type 'w8a8'"),
    ],
)
def test_types_that_do_not_fit(types: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        parse(GOLDEN_STICK, types).module_types()
    assert str(GOLDEN_STICK) in str(refusal.value)
