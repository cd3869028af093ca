# SPDX-License-Identifier: Apache-2.0
"""Reports on folders of compressed weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conversion.folders import random_folder
from vllm_mindspore.cli import main
from vllm_mindspore.conversion.convert import compress
from vllm_mindspore.inspection import compressed

QKV = "model.layers.0.self_attn.qkv_proj"


@pytest.fixture(params=[1, 2])
def made(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder for one rank, and for two."""
    compress(random_folder(tmp_path / "whole"), tmp_path / "made", request.param)
    return tmp_path / "made"


def test_a_right_folder(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compressed.is_compressed(made)
    assert main.main(["inspect", str(made)]) == 0
    text = capsys.readouterr().out
    ranks = len(list(made.glob("rank_*")))
    assert f"made for       {ranks} ranks (--tensor-parallel-size {ranks})" in text
    assert "coding         tile-bitmap version 1" in text
    assert "computed on    CPU, " in text
    assert "No problems found." in text
    assert main.main(["inspect", str(made), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    (row,) = [row for row in content["rows"] if row["name"].endswith("down_proj")]
    assert (row["count"], row["outputs"], row["inputs"]) == (2 * ranks, 96, 320 // ranks)
    assert 0.55 < row["ratio"] < 0.75
    files = list(made.glob("rank_*/*.safetensors"))
    stored = [tensor for file in files for tensor in load_file(file).items()]
    assert content["bytes_total"] == sum(tensor.nbytes for _, tensor in stored)
    down = [t.nbytes for n, t in stored if n.endswith(("down_proj.weight", "down_proj.index"))]
    assert row["stream_bytes"] + row["index_bytes"] == sum(down)


Change = Callable[[dict[str, torch.Tensor]], object]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t.pop(f"{QKV}.quant_bias"), f"rank 0: missing tensor {QKV}.quant_bias"),
        (lambda t: t.pop(f"{QKV}.index"), "missing tensor"),
        (lambda t: t.update({"x.y": torch.zeros(1)}), "rank 0: extra tensor x.y"),
        (
            lambda t: t.update({"model.layers.0.input_layernorm.weight": torch.zeros(1).half()}),
            "input_layernorm.weight: expected shape [96], found [1]",
        ),
    ],
)
def test_problems(
    made: Path, change: Change, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = made / "rank_0" / "model-00000.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    assert main.main(["inspect", str(made)]) == 1
    assert problem in capsys.readouterr().out


def test_npu_coding_is_a_problem(made: Path) -> None:
    file = made / "quantization_description.json"
    content = json.loads(file.read_text())
    del content["codec"]
    file.write_text(json.dumps(content))
    report = compressed.inspect(made)
    assert report.codec == "of an NPU"
    assert report.computed_on == "Ascend 310P"
    assert len(report.problems) == 1
    assert "compressed for an NPU" in report.problems[0]


def test_a_broken_config(made: Path) -> None:
    (made / "config.json").write_text("{")
    report = compressed.inspect(made)
    assert any("config.json" in problem for problem in report.problems)
    assert report.bytes_compressed > 0


def test_other_folders_are_not(tiny_model: Path, tmp_path: Path) -> None:
    assert not compressed.is_compressed(tiny_model)
    (tmp_path / "quantization_description.json").write_text("{")
    assert not compressed.is_compressed(tmp_path)
