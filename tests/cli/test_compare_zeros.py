# SPDX-License-Identifier: Apache-2.0
"""`vllm-mindspore quantize --compare`, which makes and measures other checkpoints of the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.test_quantize import EXAM, TINY, quantize
from vllm_mindspore.cli.quantize_arguments import COMPARED
from vllm_mindspore.quantization.ptq import evaluation, output_folder
from vllm_mindspore.quantization.ptq.evaluation import Data, Served
from vllm_mindspore.quantization.ptq.report import Evaluation

OPTIONS = ("--calibration-samples", "4", "--sparsity-method", "wanda")
KEYS = [str(share) for share in COMPARED]


def zeros(folder: Path) -> float:
    """The share of weight codes that are zero, of a folder that is not compressed."""
    tensors = [load_file(file) for file in folder.glob("*.safetensors")]
    codes = [
        values.reshape(-1)
        for part in tensors
        for name, values in part.items()
        if values.dtype == torch.int8 and name.endswith(".weight")
    ]
    return float((torch.cat(codes) == 0).float().mean())


def test_each_is_made_measured_and_removed(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mindspore_runtime: None
) -> None:
    """What is measured is the share of zeros itself, of folders that are there at that time."""
    served: dict[str, Served] = {}

    def measure(_: Data, models: Mapping[str, Served], *rest: object) -> Evaluation:
        served.update(models)
        for model in models.values():
            if model.make is not None:
                model.make()
        values = {name: zeros(model.folder) for name, model in models.items() if name != "float"}
        return {"accuracy": None, "perplexity": {"float": 0.0, **values}}

    monkeypatch.setattr(evaluation, "measure", measure)
    options = ["--scheme", "w8a8s", "--sparsity", "0.4", *OPTIONS]
    options += ["--perplexity", str(TINY / "heldout.txt"), "--compare"]
    assert quantize(tiny_model, "--output", tmp_path / "made", *options) == 0
    found = json.loads((tmp_path / "made" / output_folder.REPORT).read_text("utf-8"))["evaluation"]
    assert found["accuracy"] is None
    measured = found["perplexity"]
    assert measured["quantized"] == pytest.approx(0.4, abs=0.03)
    assert measured["w8a8"] < 0.05
    assert list(measured["by_zeros"]) == KEYS
    for share, value in measured["by_zeros"].items():
        assert value == pytest.approx(float(share), abs=0.03)
    assert not any(model.folder.exists() for name, model in served.items() if name != "float")
    assert [file.name for file in tmp_path.iterdir()] == ["made"]


@pytest.mark.full
def test_what_engines_find_is_in_the_report(
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    mindspore_runtime: None,
) -> None:
    options: list[Any] = ["--output", tmp_path / "made", "--scheme", "w8a8sc", *OPTIONS]
    options += ["--tensor-parallel-size", "2", "--evaluate", EXAM, "--evaluate-questions", "24"]
    assert quantize(tiny_model, *options, "--compare") == 0
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "made" / output_folder.REPORT).read_text("utf-8"))
    values = found["evaluation"]["accuracy"]
    assert all(0.5 < value <= 1 for value in (values["w8a8"], *values["by_zeros"].values()))
    assert f"  w8a8: {100 * values['w8a8']:.2f} %" in said
    page = (tmp_path / "made" / output_folder.PAGE).read_text("utf-8")
    assert page.count("<h2>What zeros cost</h2>") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scheme", "w8a8", "--perplexity", "x"], "w8a8sc; w8a8 has none to choose"),
        (
            ["--scheme", "w8a8s", "--sparsity-pattern", "2:4", "--perplexity", "x"],
            "--sparsity-pattern has none to choose",
        ),
        (["--scheme", "w8a8s"], "needs something to compare: --evaluate CEVAL_DIR or --perplexity"),
    ],
)
def test_nothing_to_compare_is_refused(
    options: list[str],
    message: str,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "x").write_text("some text")
    options = [str(tmp_path / "x") if option == "x" else option for option in options]
    assert quantize(tiny_model, "--output", tmp_path / "made", *options, "--compare") == 2
    assert message in capsys.readouterr().err
