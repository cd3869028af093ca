# SPDX-License-Identifier: Apache-2.0
"""The command line: own commands, vLLM's commands, help, and the flags the documents use."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ANY_PORT
from vllm_mindspore import __version__
from vllm_mindspore.cli import main

RunPython = Callable[..., subprocess.CompletedProcess[str]]

SCRIPT = Path(sys.executable).with_name("vllm-mindspore")
DOCUMENTED_FLAGS = (
    "--trust_remote_code --tensor_parallel_size=2 --max-num-seqs=256 --block-size=128 "
    "--gpu-memory-utilization=0.8 --max-num-batched-tokens=16384 --max-model-len=32768 "
    "--quantization golden-stick --load-format sparse_quant"
)


def test_a_reader_that_wants_no_more_ends_inspect_without_a_word(tiny_model: Path) -> None:
    inspect = subprocess.Popen(
        [SCRIPT, "inspect", tiny_model], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert inspect.stdout is not None
    assert inspect.stderr is not None
    inspect.stdout.close()
    assert inspect.stderr.read() == ""
    assert inspect.wait(60) == -signal.SIGPIPE


def test_help_lists_own_commands_and_those_of_vllm() -> None:
    result = subprocess.run(
        [SCRIPT, "--help"], capture_output=True, text=True, timeout=240, check=True
    )
    for name in (*main.COMMANDS, "serve", "chat", "complete", "bench"):
        assert f" {name} " in result.stdout.replace(",", " ").replace("{", " ").replace("}", " ")
    assert "usage: vllm-mindspore" in result.stdout


def test_version_names_both(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main.main(["--version"])
    assert stopped.value.code == 0
    assert capfd.readouterr().out.split() == [
        "vllm-mindspore",
        f"{__version__},",
        "vllm",
        "0.32.0",
    ]


@pytest.mark.parametrize("name", main.COMMANDS)
def test_own_commands_follow_the_protocol(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = main._load(name)
    assert name == command.NAME
    assert command.HELP
    with pytest.raises(SystemExit) as stopped:
        main.main([name, "--help"])
    assert stopped.value.code == 0
    assert f"usage: vllm-mindspore {name}" in capsys.readouterr().out


def test_exit_code_is_that_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    command = argparse.Namespace(
        NAME="demo", HELP="", add_arguments=lambda parser: None, run=lambda args: 7
    )
    monkeypatch.setattr(main, "_load", lambda name: command)
    assert main.main(["demo"]) == 7


def test_flags_of_the_documents_parse() -> None:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser())
    args = parser.parse_args(["--model", "folder", *DOCUMENTED_FLAGS.split()])
    assert (args.trust_remote_code, args.tensor_parallel_size, args.block_size) == (True, 2, 128)
    assert (args.max_num_batched_tokens, args.max_model_len) == (16384, 32768)


def test_refusal_reaches_the_user_of_serve(tiny_model: Path) -> None:
    result = subprocess.run(
        [SCRIPT, "serve", str(tiny_model), *DOCUMENTED_FLAGS.split(), *ANY_PORT],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("vllm-mindspore: error: quantization='golden-stick', but ")
    assert "its weights are plain. Drop --quantization" in last
    assert "Traceback" not in result.stderr


def test_contradicting_files_are_told_to_the_user_of_serve(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "quant_model_description.json").write_text("{}")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8"}
    (folder / "config.json").write_text(json.dumps(config))
    result = subprocess.run(
        [SCRIPT, "serve", str(folder), "--quantization", "ascend", *ANY_PORT],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 1
    assert "Remove quantization_config from config.json" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("script", ["vllm", "vllm-mindspore"])
def test_wrong_variable_reaches_the_user_of_serve(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setenv("VLLM_MS_MODEL_BACKEND", "MindFormers")
    result = subprocess.run(
        [SCRIPT.with_name(script), "serve", str(tiny_model), *ANY_PORT],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode != 0
    assert "VLLM_MS_MODEL_BACKEND='MindFormers'" in result.stderr.splitlines()[-1]


def test_serve_leaves_on_ctrl_c_before_vllm_is_imported(run_python: RunPython) -> None:
    code = """
import os, signal, sys
from vllm_mindspore.cli import main

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "vllm.entrypoints.cli.main":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # background shells start us without
sys.meta_path.insert(0, Interrupt())
main.main(["serve", "no model"])
"""
    child = run_python(code, check=False)
    assert child.returncode == 130
    assert "Traceback" not in child.stderr


def test_spawned_children_of_the_script_are_activated(run_python: RunPython) -> None:
    code = f"""
import runpy
names = runpy.run_path({str(SCRIPT)!r}, run_name="__mp_main__")
import sys
assert "vllm_mindspore.plugin" in sys.modules and "entry" in names
"""
    run_python(code)
