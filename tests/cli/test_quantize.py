# SPDX-License-Identifier: Apache-2.0
"""`vllm-mindspore quantize`: a checkpoint of the tiny model, killed, taken up; refusals."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vllm_mindspore.cli import main
from vllm_mindspore.cli import quantize as command
from vllm_mindspore.quantization.ptq import evaluation, output_folder, report, sparsity
from vllm_mindspore.quantization.ptq.evaluation import Data, Served
from vllm_mindspore.quantization.ptq.report import Evaluation, Origin, Sizes

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "examples" / "tiny_model"
EXAM = TINY / "ceval"
SCRIPT = Path(sys.executable).with_name("vllm-mindspore")
RunPython = Callable[..., subprocess.CompletedProcess[str]]


def quantize(*arguments: str | Path) -> int:
    return main.main(["quantize", *map(str, arguments)])


def start(model: Path, output: Path) -> subprocess.Popen[str]:
    options = ["--scheme", "w8a8sc", "--sparsity", "0.5", "--tensor-parallel-size", "2"]
    options += ["--sparsity-method", "wanda", "--outlier-suppression", "smooth"]
    options += ["--calibration", str(EXAM)]
    command = [SCRIPT, "quantize", model, "--output", output, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def names_of_files(folder: Path) -> list[Path]:
    return sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())


def test_killed_and_taken_up_it_writes_the_same_bytes(tiny_model: Path, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    first = start(tiny_model, killed)
    work = tmp_path / "killed.partial"
    deadline = time.monotonic() + 300
    while not (work / "layer-00000.json").exists():
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert not killed.exists()
    assert not (work / "layer-00003.json").exists(), "it was killed too late to test anything"
    again, other = start(tiny_model, killed), start(tiny_model, whole)
    said, _ = again.communicate(timeout=500)
    assert again.returncode == 0, said
    assert "Going on after " in said
    assert "28 linear layers quantized" in said
    assert other.communicate(timeout=500)[0].count("Going on") == other.returncode == 0
    assert "Compressed for 2 ranks: " in said
    files = names_of_files(whole)
    assert {Path("rank_0"), Path("rank_1")} < {name.parent for name in files}
    assert files == names_of_files(killed)
    for name in files:
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    assert sorted(file.name for file in tmp_path.iterdir()) == ["killed", "whole"]


def test_measured_and_interrupted_at_the_last_moment(
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    mindspore_runtime: None,
) -> None:
    """Both models' perplexity is in the report; what a kill between the folder's appearance and
    the removal of its parts leaves, the same command removes."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join((TINY / "heldout.txt").read_text("utf-8").split("\n")[:40]), "utf-8")
    options = ["--output", tmp_path / "made", "--scheme", "float", "--kv-cache-scheme", "int8"]
    options += ["--calibration-samples", "4", "--perplexity", text]

    def interrupt(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(output_folder, "remove_work", interrupt)
        assert quantize(tiny_model, *options) == 130
    found = json.loads((tmp_path / "made" / output_folder.REPORT).read_text("utf-8"))
    assert found["evaluation"]["accuracy"] is None
    measured = found["evaluation"]["perplexity"]
    assert measured["float"] == pytest.approx(measured["quantized"], rel=0.02)
    assert 1.1 < measured["float"] != measured["quantized"]
    assert (tmp_path / "made.partial").exists()
    assert quantize(tiny_model, *options, "--scheme", "w8a8") == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert quantize(tiny_model, *options) == 0
    said = capsys.readouterr().out
    assert "is complete already" in said
    assert (
        f"perplexity: float {measured['float']:.4f}, quantized {measured['quantized']:.4f}" in said
    )
    assert not (tmp_path / "made.partial").exists()


@pytest.mark.parametrize(
    ("scheme", "ranks", "complete"),
    [("w8a8sc", 2, True), ("w8a8sc", 1, False), ("w8a8s", None, False)],
)
def test_another_output_of_the_same_parts_is_not_complete(
    scheme: str,
    ranks: int | None,
    complete: bool,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Interrupted before the parts of W8A8SC for two ranks were removed, from which W8A8S and
    other numbers of ranks are made, too."""
    made, options = tmp_path / "made", ["--calibration-samples", "1", "--scheme"]
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    arguments = [str(tiny_model), "--output", str(made), *options, "w8a8sc"]
    job, _ = command.prepare(parser.parse_args(arguments))
    output_folder.open_work(job, made).close()
    made.mkdir()
    content = report.content(Origin("1", "golden-stick", {}, {}), [], Sizes(2, 1))
    content["compression"] = {"ranks": 2, "ratio": 0.5}
    (made / output_folder.REPORT).write_text(json.dumps(content))
    divided = [] if ranks is None else ["--tensor-parallel-size", str(ranks)]
    status = quantize(tiny_model, "--output", made, *options, scheme, *divided)
    said = capsys.readouterr()
    if complete:
        assert status == 0
        assert "is complete already" in said.out
        assert "Compressed for 2 ranks: 50.0%" in said.out
    else:
        assert status == 2
        assert "exists and is not an empty folder; choose another --output" in said.err
    assert output_folder.has_work(made) is not complete


def test_compressed_weights_are_measured_with_their_ranks(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mindspore_runtime: None
) -> None:
    served: dict[str, Served] = {}

    def measure(data: Data, models: dict[str, Served], *rest: object) -> Evaluation:
        served.update(models)
        return report.NOT_MEASURED

    monkeypatch.setattr(evaluation, "measure", measure)
    options = ["--scheme", "w8a8sc", "--sparsity-method", "wanda", "--tensor-parallel-size", "2"]
    options += ["--calibration-samples", "4", "--perplexity", str(TINY / "heldout.txt")]
    assert quantize(tiny_model, "--output", tmp_path / "made", *options) == 0
    assert served["float"] == Served(tiny_model)
    assert served["quantized"].options == ("--tensor-parallel-size", "2")


def test_other_options_do_not_take_up_unfinished_work(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vllm_mindspore.quantization.ptq.work_folder import WorkFolder

    WorkFolder(tmp_path / "made.partial", {"options": "others"}).close()
    assert quantize(tiny_model, "--output", tmp_path / "made", "--scheme", "w8a8") == 2
    assert "unfinished work with other calibration, options" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


REFUSED = {
    "scheme and method": (
        ["--scheme", "w8a16", "--outlier-suppression", "smooth"],
        "'smooth' is for quantized activations",
    ),
    "group size": (["--scheme", "w8a8", "--group-size", "64"], "--group-size 64 is for w4a16"),
    "other group size": (["--scheme", "w4a16", "--group-size", "32"], "expected one of 64"),
    "policy": (["--scheme", "w8a8", "--layer-policy", "x"], "expected REGEX=SCHEME"),
    "policy's scheme": (["--scheme", "w8a8", "--layer-policy", "x=w9"], "expected REGEX=SCHEME"),
    "policy's pattern": (
        ["--scheme", "w8a8", "--layer-policy", "x=float"],
        "'x' matches no linear layer",
    ),
    "skip": (["--scheme", "w8a8", "--skip", "o_prj"], "'o_prj', which is to be skipped"),
    "head": (
        ["--scheme", "w8a8", "--skip", "lm_head", "--quantize-lm-head"],
        "to be quantized: choose one",
    ),
    "calibration": (["--scheme", "w8a8", "--calibration", "nowhere.txt"], "cannot read nowhere"),
    "nothing": (["--scheme", "float"], "no linear layer is left to quantize, and no int8"),
    "method of nothing": (
        ["--scheme", "float", "--outlier-suppression", "smooth"],
        "'smooth' is for quantized activations",
    ),
    "questions": (
        ["--scheme", "w8a8", "--evaluate-questions", "3"],
        "--evaluate-questions 3 needs --evaluate",
    ),
    "exam": (["--scheme", "w8a8", "--evaluate", "nowhere"], "nowhere does not exist"),
    "samples": (["--scheme", "w8a8", "--calibration-samples", "0"], "expected at least 1"),
    "sparsity": (["--scheme", "w8a8s", "--sparsity", "1"], "--sparsity 1.0: expected a share"),
    "sparsity of another scheme": (
        ["--scheme", "w8a8", "--sparsity", "0.5"],
        "--sparsity 0.5 is for w8a8s and w8a8sc, and no layer has it",
    ),
    "method of another scheme": (
        ["--scheme", "w8a8", "--sparsity-method", "wanda"],
        "--sparsity-method wanda is for w8a8s",
    ),
    "ranks of what is not divided": (
        ["--scheme", "w8a8s", "--tensor-parallel-size", "2"],
        "--tensor-parallel-size 2 is for w8a8sc; others are divided when they are loaded",
    ),
    "ranks": (["--scheme", "w8a8sc", "--tensor-parallel-size", "0"], "expected a number from 1"),
    "ranks that do not divide": (
        ["--scheme", "w8a8sc", "--tensor-parallel-size", "3"],
        "among 3 ranks",
    ),
    "layers of other schemes": (
        ["--scheme", "w8a8sc", "--layer-policy", ".*down_proj=w8a8-dynamic"],
        "down_proj is to be W8A8_DYNAMIC; beside sparse layers",
    ),
    "layers to compress": (
        ["--scheme", "w8a8sc", "--skip", "proj", "--quantize-lm-head"],
        "w8a8sc compresses sparse layers of the decoder; with --skip proj there are none: name",
    ),
    "layers to compress, by policies": (
        ["--scheme", "w8a8sc", "--skip", "mlp", "--layer-policy", ".*=w8a8"],
        "with --skip mlp and --layer-policy .*=w8a8 there are none",
    ),
    "int8 cache beside compressed weights": (
        ["--scheme", "w8a8sc", "--kv-cache-scheme", "int8"],
        "w8a8sc files have no place for an int8 key/value cache: use w8a8s",
    ),
    "shifted inputs": (
        ["--scheme", "w8a8sc", "--outlier-suppression", "os+"],
        "'os+' shifts inputs, which w8a8sc files have no place for",
    ),
    "pattern": (["--scheme", "w8a8s", "--sparsity-pattern", "2-4"], "expected N:M"),
    "pattern and sparsity": (
        ["--scheme", "w8a8s", "--sparsity-pattern", "2:4", "--sparsity", "0.6"],
        "leave one out",
    ),
    "pattern and channels": (
        ["--scheme", "w8a8s", "--sparsity-pattern", "5:10"],
        "q_proj has 256 input channels, no multiple of the 10",
    ),
    "writer": (["--scheme", "w4a16", "--writer", "modelslim"], "use --writer golden-stick"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_are_refused_before_any_work(
    name: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, message = REFUSED[name]
    assert quantize(tiny_model, "--output", tmp_path / "made", *options) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_refused(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantize(tmp_path / "none", "--output", tmp_path / "made", "--scheme", "w8a8") == 2
    assert "is no folder; download" in capsys.readouterr().err
    assert quantize(tiny_model, "--output", tmp_path.parent, "--scheme", "w8a8") == 2
    assert "is not an empty folder" in capsys.readouterr().err


def test_help_names_the_share_of_zeros_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main.main(["quantize", "--help"])
    described = " ".join(capsys.readouterr().out.split())
    assert f"of zeros, between 0 and 1 (default: {sparsity.RECOMMENDED})" in described


def test_checking_imports_no_mindspore(
    tiny_model: Path, tmp_path: Path, run_python: RunPython
) -> None:
    run_python(
        "import argparse, sys\n"
        "from vllm_mindspore.cli import quantize\n"
        "parser = argparse.ArgumentParser()\n"
        "quantize.add_arguments(parser)\n"
        f"arguments = [{str(tiny_model)!r}, '--output', 'made', '--scheme', 'w8a8']\n"
        "job, calibration = quantize.prepare(parser.parse_args(arguments))\n"
        "assert len(job.policies) == 28 and len(calibration.samples) == 64\n"
        "assert 'mindspore' not in sys.modules\n"
    )
