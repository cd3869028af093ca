# SPDX-License-Identifier: Apache-2.0
"""Errors of checks are told without a traceback, all others keep theirs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from vllm_mindspore.cli import main, refusals
from vllm_mindspore.model_executor.model_loader import checkpoint_files


class Options(BaseModel):
    """As vLLM's configuration is checked."""

    dtype: str = "auto"
    model: str

    @field_validator("model")
    @classmethod
    def check(cls, model: str) -> str:
        if model == "broken":
            raise ValueError("the model is broken; use another")
        return model


def raised(call: Callable[[], object]) -> ValueError:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - any
        call()
    return error.value


def test_every_fault_of_the_configuration_is_a_line() -> None:
    error = raised(lambda: Options(dtype=7, model="broken"))  # type: ignore[arg-type]
    assert isinstance(error, ValidationError)
    told = refusals.told(error)
    assert told is not None
    assert told.splitlines() == [
        "dtype: Input should be a valid string",
        "model: the model is broken; use another",
    ]


def test_a_check_of_ours_is_told_and_a_fault_elsewhere_is_not(tmp_path: Path) -> None:
    ours = raised(lambda: checkpoint_files.check_folder(tmp_path))
    assert refusals.told(ours) == str(ours)
    assert refusals.told(raised(lambda: int("x"))) is None
    assert refusals.told(ValueError("never raised")) is None


def test_debugging_shows_tracebacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "debug")
    assert refusals.told(raised(lambda: checkpoint_files.check_folder(tmp_path))) is None


def test_exit_code_and_stream(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(_arguments: list[str]) -> int:
        checkpoint_files.check_folder(tmp_path)
        return 0

    monkeypatch.setattr(main, "_run_vllm", refuse)
    assert main.main(["serve"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"vllm-mindspore: error: {tmp_path} has no *.safetensors file")
