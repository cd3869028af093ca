# SPDX-License-Identifier: Apache-2.0
"""`vllm-mindspore eval` from arguments to report and JSON."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vllm_mindspore.cli import eval as command

TINY = Path(__file__).parents[2] / "examples" / "tiny_model"
CEVAL = str(TINY / "ceval")
Oracle = Any  # the class lives in conftest.py, which tests do not import


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ceval", CEVAL], "MODEL is needed, unless --base-url"),
        (["m", "--ceval", "nowhere"], "CEval folder nowhere does not exist"),
        (["m", "--ceval", str(TINY / "model")], "has no folder 'val'"),
        (["m", "--ceval", CEVAL, "--limit", "0"], "--limit must be at least 1"),
        (["m", "--ceval", CEVAL, "--shots", "9999"], "--shots 9999"),
        (["m", "--ceval", CEVAL, "--shots", "-1"], "--shots must not be negative"),
        (["m", "--ceval", CEVAL, "--max-tokens", "0"], "--max-tokens must be at least 1, got 0"),
        (["m", "--ceval", CEVAL, "--concurrency", "0"], "--concurrency must be at least 1"),
        (["m", "--ceval", CEVAL, "--system-prompt", "x"], "--system-prompt needs --chat"),
        (["m", "--ceval", CEVAL, "--output", "no/where.json"], "--output: there is no folder"),
        (["m", "--perplexity", "nowhere.txt"], "cannot read nowhere.txt"),
        (["m", "--perplexity", str(TINY / "heldout.txt"), "--window", "1"], "--window must be at"),
        (
            [
                "--base-url",
                "http://x",
                "--ceval",
                CEVAL,
                "--dtype",
                "bfloat16",
                "--block-size",
                "16",
            ],
            "--dtype, --block-size: with --base-url the server",
        ),
    ],
)
def test_bad_arguments_are_named_before_any_engine_starts(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # The model "m" does not exist: an engine that started would complain about that instead.
    assert command.run(parse(*arguments)) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("vllm-mindspore eval: error: ")
    assert message in captured.err
    assert captured.out == ""


def test_one_task_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["m"], ["m", "--ceval", "a", "--perplexity", "b"]):
        with pytest.raises(SystemExit):
            parse(*arguments)
    assert "--ceval" in capsys.readouterr().err


def test_engine_options_are_passed_on_only_when_given() -> None:
    assert command.engine_options(parse("m", "--ceval", "x")) == {}
    arguments = "--dtype float32 --max-model-len 512 --max-num-seqs 4 --quantization ascend"
    arguments += " --load-format dummy --block-size 32 --gpu-memory-utilization 0.5 --enforce-eager"
    given = command.engine_options(parse("m", "--ceval", "x", *arguments.split()))
    assert given == {
        "dtype": "float32",
        "max_model_len": 512,
        "max_num_seqs": 4,
        "quantization": "ascend",
        "load_format": "dummy",
        "block_size": 32,
        "gpu_memory_utilization": 0.5,
        "enforce_eager": True,
    }


def write_exam(folder: Path) -> Path:
    for split in ("dev", "val"):
        (folder / split).mkdir()
        for subject, answer in (("birds", "A"), ("fish", "B")):
            rows = "".join(f"{i},{subject} {split} {i}?,a,b,c,d,{answer}\n" for i in range(4))
            text = "id,question,A,B,C,D,answer\n" + rows
            (folder / split / f"{subject}_{split}.csv").write_text(text)
    return folder


def question(subject: str, number: int) -> str:
    return f"Question: {subject} val {number}?\nA. a\nB. b\nC. c\nD. d"


def example(subject: str) -> str:
    return f"Question: {subject} dev 0?\nA. a\nB. b\nC. c\nD. d"


def test_exam_over_http(oracle: Oracle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, output = write_exam(tmp_path), tmp_path / "result.json"
    said = {"birds": [" A", " A", " B", " nothing"], "fish": [" B", " B", " B", " B"]}
    answers = {"birds": "A", "fish": "B"}
    for subject, texts in said.items():
        for number, text in enumerate(texts):
            head = f"{example(subject)}\nAnswer: {answers[subject]}\n\n"
            oracle.answers[f"{head}{question(subject, number)}\nAnswer:"] = text
    arguments = ["--base-url", oracle.url, "--ceval", str(folder), "--shots", "1"]
    assert command.run(parse(*arguments, "--output", str(output))) == 0
    result = json.loads(output.read_text())
    assert (result["questions"], result["correct"], result["unanswered"]) == (8, 6, 1)
    assert result["accuracy"] == 0.75
    assert result["standard_error"] == pytest.approx(math.sqrt(0.75 * 0.25 / 8))
    assert result["subjects"]["birds"]["accuracy"] == 0.5
    assert result["subjects"]["fish"]["standard_error"] == 0.0
    given = [answer["given"] for answer in result["answers"]]
    assert given == ["A", "A", "B", None, "B", "B", "B", "B"]
    assert (result["model"], result["split"], result["shots"]) == ("oracle", "val", 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["birds", "4", "2", "50.00", "%", "+-", "25.00"]
    assert lines[3].split() == ["total", "8", "6", "75.00", "%", "+-", "15.31"]
    assert lines[4].startswith("1 answers had no letter")


def test_chat_exam_over_http(oracle: Oracle, tmp_path: Path) -> None:
    folder, output = write_exam(tmp_path), tmp_path / "result.json"
    oracle.answers = {question("birds", 0): "<think>B?</think>A", question("fish", 0): "B"}
    arguments = ["--base-url", oracle.url, "--ceval", str(folder), "--chat", "--limit", "2"]
    arguments += ["--system-prompt", "Be brief.", "--output", str(output)]
    assert command.run(parse(*arguments)) == 0
    result = json.loads(output.read_text())
    assert (result["questions"], result["correct"], result["chat"]) == (2, 2, True)
    assert oracle.requests[0][1]["messages"][0] == {"role": "system", "content": "Be brief."}


def test_perplexity_over_http(
    oracle: Oracle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = tmp_path / "text.txt", tmp_path / "result.json"
    path.write_text("x" * 100 + "\n<|endoftext|>\nyy")
    arguments = ["oracle", "--base-url", oracle.url, "--perplexity", str(path)]
    assert command.run(parse(*arguments, "--output", str(output))) == 0
    # 63 tokens fit beside the generated one: windows of 63, 37 and 2, the first of each not scored.
    nll = [ord("x") / 100] * (62 + 36) + [ord("y") / 100]
    result = json.loads(output.read_text())
    assert (result["tokens"], result["window"], result["documents"]) == (99, 63, 2)
    assert result["perplexity"] == pytest.approx(math.exp(sum(nll) / 99))
    assert "perplexity" in capsys.readouterr().out
    assert command.run(parse(*arguments, "--window", "64")) == 2
    assert "--window 64: the model takes at most 63 tokens" in capsys.readouterr().err


def test_declaring_the_command_loads_neither_vllm_nor_mindspore() -> None:
    """`--help` must be quick: what the module itself imports counts, not what activation does."""
    script = (
        "import sys, types, argparse, importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('command', {command.__file__!r})\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "module.add_arguments(argparse.ArgumentParser())\n"
        "assert not {'vllm', 'mindspore', 'torch', 'httpx'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
