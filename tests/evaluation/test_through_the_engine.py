# SPDX-License-Identifier: Apache-2.0
"""`eval` on the tiny model through our engine gives the figures that transformers gave.

model_card.json was measured with Hugging Face transformers on torch, without the engine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vllm_mindspore.cli.server import Server

TINY = Path(__file__).parents[2] / "examples" / "tiny_model"
EXAM = ("--ceval", str(TINY / "ceval"))
TEXT = ("--perplexity", str(TINY / "heldout.txt"))
READY_SECONDS = 180


def evaluate(output: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "vllm_mindspore.cli.main", "eval", *arguments]
    subprocess.run([*command, "--output", str(output)], check=True, timeout=600)
    result: dict[str, Any] = json.loads(output.read_text())
    return result


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((TINY / "model_card.json").read_text())
    return loaded


@pytest.mark.parametrize("task", ["exam", "perplexity"])
def test_offline_in_fp32(card: dict[str, Any], tmp_path: Path, task: str) -> None:
    engine = (str(TINY / "model"), "--dtype", "float32", "--max-model-len", "1024")
    if task == "exam":
        result = evaluate(tmp_path / "exam.json", *engine, *EXAM)
        assert result["questions"] == card["val_questions"]
        # fp32 differs in the order of sums only: at most one near-tie may fall the other way.
        assert abs(result["correct"] - card["float32"]["val_accuracy"] * result["questions"]) <= 1
        by_subject = {name: part["accuracy"] for name, part in result["subjects"].items()}
        assert by_subject == pytest.approx(card["float32"]["val_accuracy_by_subject"], abs=0.011)
    else:
        result = evaluate(tmp_path / "text.json", *engine, *TEXT)
        assert result["perplexity"] == pytest.approx(
            card["float32"]["heldout_perplexity"], rel=1e-4
        )


def test_over_http_in_bf16(card: dict[str, Any], tmp_path: Path) -> None:
    with Server(str(TINY / "model"), tmp_path / "log", ["--max-model-len", "1024"]) as server:
        server.wait_until_ready(READY_SECONDS, lambda elapsed: None)
        exam = evaluate(tmp_path / "exam.json", "--base-url", server.url, *EXAM)
        text = evaluate(tmp_path / "text.json", "--base-url", server.url, *TEXT)
    # Eight bits of mantissa: other kernels round otherwise, which decides some of the near-ties.
    assert exam["accuracy"] == pytest.approx(card["bfloat16"]["val_accuracy"], abs=0.01)
    assert exam["unanswered"] == 0
    assert text["perplexity"] == pytest.approx(card["bfloat16"]["heldout_perplexity"], rel=0.005)
