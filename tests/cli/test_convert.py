# SPDX-License-Identifier: Apache-2.0
"""`vllm-mindspore convert`: what it prints, exit codes, and that nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conversion.folders import random_folder
from vllm_mindspore.cli import main
from vllm_mindspore.conversion import convert


def test_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, made, back = (str(tmp_path / name) for name in ("whole", "made", "back"))
    random_folder(tmp_path / "whole")
    arguments = ["convert", source, "--output", made, "--tensor-parallel-size", "2"]
    assert main.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "16 layers compressed: 50." in printed
    assert "of their bytes are left" in printed
    assert f"Serve it: vllm-mindspore serve {made}" in printed
    assert main.main(["convert", made, "--output", back, "--to", "w8a8s"]) == 0
    assert "compressed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tensor-parallel-size", "3"], "cannot be divided among 3 ranks"),
        (["--tensor-parallel-size", "0"], "expected a number from 1"),
        (["--to", "w8a8", "--tensor-parallel-size", "2"], "are divided when they are loaded"),
    ],
)
def test_errors_are_exit_code_2(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(random_folder(tmp_path / "whole"))
    assert main.main(["convert", source, "--output", str(tmp_path / "made"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_ctrl_c_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(random_folder(tmp_path / "whole"))

    def stopped(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(convert, "_description_name", stopped)
    arguments = ["convert", source, "--output", str(tmp_path / "made"), "--to", "w8a8"]
    assert main.main(arguments) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["whole"]
