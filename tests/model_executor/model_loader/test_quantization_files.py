# SPDX-License-Identifier: Apache-2.0
"""What folders say of themselves is found under any name, and is not trusted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.quantization import compressed
from vllm_mindspore.model_executor.model_loader.quantization_files import (
    METHODS,
    check_asked,
    read_description,
    read_quantization,
    stated_in,
)
from vllm_mindspore.quantization.compressed_tensors import CompressedTensors
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


COMPRESSED = compressed.quantization_config(compressed.config([(["Linear"], compressed.DYNAMIC)]))
DESCRIPTIONS = {
    Tool.GOLDEN_STICK: "quantization_description.json",
    Tool.MODELSLIM: "quant_model_description.json",
}


def describe(folder: Path, tool: Tool) -> None:
    (folder / DESCRIPTIONS[tool]).write_text('{"a.weight": "FLOAT"}')


def test_configurations_of_compressed_tensors(tmp_path: Path) -> None:
    for spelling in ("compressed-tensors", "compressed_tensors", "Compressed-Tensors"):
        found = read_quantization(tmp_path, COMPRESSED | {"quant_method": spelling})
        assert isinstance(found, CompressedTensors)
        assert found.file == tmp_path / "config.json"


def test_plain_weights_say_nothing(tmp_path: Path) -> None:
    assert read_quantization(tmp_path, None) is None


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_where_it_is_stated(key: str) -> None:
    assert stated_in({key: COMPRESSED, "hidden_size": 1}) == COMPRESSED
    assert stated_in(SimpleNamespace(**{key: COMPRESSED})) == COMPRESSED
    assert stated_in({key: {}}) is None
    assert stated_in({key: None}) is None


@pytest.mark.parametrize(
    ("tool", "method"),
    [
        (Tool.GOLDEN_STICK, "golden-stick"),
        (Tool.GOLDEN_STICK, "SmoothQuant"),
        (Tool.MODELSLIM, "ascend"),
        (Tool.MODELSLIM, "smoothquant"),
    ],
)
def test_both_places_may_agree(tmp_path: Path, tool: Tool, method: str) -> None:
    describe(tmp_path, tool)
    found = read_quantization(tmp_path, {"quant_method": method})
    assert found == read_description(tmp_path)


@pytest.mark.parametrize(
    ("tool", "method"),
    [
        (Tool.GOLDEN_STICK, "fp8"),
        (Tool.GOLDEN_STICK, "ascend"),
        (Tool.MODELSLIM, "golden-stick"),
        (Tool.MODELSLIM, "compressed-tensors"),
    ],
)
def test_both_places_must_agree(tmp_path: Path, tool: Tool, method: str) -> None:
    describe(tmp_path, tool)
    message = f"{tool.writer} made this .* quant_method '{method}', which .*Remove quantization_con"
    with pytest.raises(ValueError, match=message) as refusal:
        read_quantization(tmp_path, {"quant_method": method})
    assert str(tmp_path / DESCRIPTIONS[tool]) in str(refusal.value)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"quant_method": "ascend"}, "'ascend', but .* none of the .*Copy the file that ModelSlim"),
        ({"quant_method": "smoothquant"}, "that Golden Stick or ModelSlim wrote"),
        ({"quant_method": "gptq"}, "'gptq', which is not read here.*Take the float checkpoint"),
        ({"bits": 4}, "expected an object with quant_method, found {'bits': 4}"),
        ({"quant_method": None}, "expected an object with quant_method"),
        ({"quant_method": 3}, "expected an object with quant_method"),
        ([1], r"expected an object with quant_method, found \[1\]"),
        ("fp8", "expected an object with quant_method, found 'fp8'"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, stated: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        read_quantization(tmp_path, stated)
    assert str(refusal.value).startswith(str(tmp_path / "config.json"))


def test_what_may_be_asked_of_each(tmp_path: Path) -> None:
    """Everything else contradicts the files."""
    right = {
        Tool.GOLDEN_STICK: {"golden-stick", "golden_stick", "smoothquant"},
        Tool.MODELSLIM: {"ascend", "smoothquant"},
        None: {"compressed-tensors"},
    }
    for tool, names in right.items():
        folder = tmp_path / str(tool)
        folder.mkdir()
        if tool is not None:
            describe(folder, tool)
        found = read_quantization(folder, None if tool else COMPRESSED)
        assert found is not None
        assert set(found.names) == names
        for asked in METHODS:
            if asked in names:
                check_asked(folder, asked, found)
                continue
            message = f"='{asked}', but .*was written by {found.writer} for .* {found.names[0]}"
            with pytest.raises(ValueError, match=message):
                check_asked(folder, asked, found)
