# SPDX-License-Identifier: Apache-2.0
"""`vllm-mindspore inspect`: text, JSON, exit codes, and no MindSpore."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT, RunPython
from vllm_mindspore.cli import main


def test_a_right_folder(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["inspect", str(tiny_model)]) == 0
    assert "Qwen3ForCausalLM" in capsys.readouterr().out


def test_problems_are_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["inspect", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert f"{tmp_path / 'config.json'} does not exist" in output
    assert f"{tmp_path} has no *.safetensors file" in output


def test_json(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["inspect", str(tiny_model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["types"] == {"FLOAT": 46}


@pytest.mark.parametrize("folder", ["no such folder", __file__])
def test_bad_arguments_are_exit_code_2(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main.main(["inspect", folder])
    assert stopped.value.code == 2
    assert f"{folder} is not a folder" in capsys.readouterr().err


def test_mindspore_is_not_imported(tiny_model: Path, run_python: RunPython) -> None:
    code = f"""
import sys
from vllm_mindspore.cli import main
assert main.main(["inspect", {str(tiny_model)!r}]) == 0
assert "mindspore" not in sys.modules
"""
    run_python(code, env={"PYTHONPATH": str(ROOT)})
