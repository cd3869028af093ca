# SPDX-License-Identifier: Apache-2.0
"""The description file of a folder is found under any of its names, and is not trusted."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_mindspore.model_executor.model_loader.quantization_files import read_description
from vllm_mindspore.quantization.description import Tool

NAMES = {
    "quantization_description.json": Tool.GOLDEN_STICK,
    "quant_model_description.json": Tool.MODELSLIM,
    "quant_model_description_w8a8.json": Tool.MODELSLIM,
    "quant_model_description_w8a8_dynamic.json": Tool.MODELSLIM,
}


@pytest.mark.parametrize(("name", "tool"), NAMES.items())
def test_every_name_is_found(tmp_path: Path, name: str, tool: Tool) -> None:
    (tmp_path / name).write_text('{"a.weight": "FLOAT"}')
    found = read_description(tmp_path)
    assert found is not None
    assert (found.tool, found.file) == (tool, tmp_path / name)


def test_plain_folders_have_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert read_description(tmp_path) is None


def test_several_are_refused(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=r"has 4 quantization descriptions.*expected one"):
        read_description(tmp_path)


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"a": "FLOAT", "a": "W8A8"}', '{"a.weight": 3}', "\xff"]
)
def test_broken_ones_are_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "quantization_description.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match="expected") as refusal:
        read_description(tmp_path)
    assert str(file) in str(refusal.value)
