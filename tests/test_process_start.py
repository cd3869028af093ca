# SPDX-License-Identifier: Apache-2.0
"""When a fork is safe, and what happens when it is not. Every case is a script of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from vllm_mindspore import process_start

RunPython = Callable[..., subprocess.CompletedProcess[str]]

STATES = {
    "nothing": ("", False),
    "import": ("import mindspore", False),
    "context": ("import mindspore as ms; ms.set_device('CPU'); ms.set_context(mode=0)", False),
    "tensor": ("import mindspore as ms; ms.Tensor([1.0]).asnumpy()", False),
    "dlpack": (
        "import torch, torch.utils.dlpack as t, mindspore.utils.dlpack as m\n"
        "m.from_dlpack(t.to_dlpack(torch.zeros(3)))",
        True,
    ),
    "dispatch_threads": ("import mindspore as ms; ms.runtime.dispatch_threads_num(2)", True),
    "pynative_op": (
        "import mindspore as ms; ms.set_context(mode=1); t = ms.Tensor([1.0]); t + t",
        True,
    ),
    "graph": (
        "import mindspore as ms\n\n@ms.jit\ndef double(x):\n    return x + x\n\n"
        "double(ms.Tensor([1.0]))",
        True,
    ),
}
RUN_OP = "import mindspore as ms; ms.set_context(mode=1); t = ms.Tensor([1.0]); t + t\n"
SET_THREADS = "import mindspore as ms; ms.runtime.dispatch_threads_num(2)\n"
CONFIGURE = """
import os, sys
import vllm_mindspore
from vllm.engine.arg_utils import EngineArgs

def configure():
    EngineArgs(model={model!r}).create_engine_config()
    print("start method:", os.environ.get("VLLM_WORKER_MULTIPROC_METHOD"))
"""
UNGUARDED = "configure()\n"
GUARDED = "if __name__ == '__main__':\n    configure()\n"
SPAWN_CHILD = """
import multiprocessing
if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=print)
    child.start()
    child.join(120)
    print("exit code of the child:", child.exitcode)
else:
    configure()
"""


@pytest.mark.parametrize("state", STATES)
def test_detects_that_mindspore_has_run(run_python: RunPython, tmp_path: Path, state: str) -> None:
    code, expected = STATES[state]
    probe = "from vllm_mindspore.process_start import mindspore_has_run\nprint(mindspore_has_run())"
    script = tmp_path / "script.py"  # MindSpore compiles functions from their source file
    script.write_text(f"{code}\n{probe}")
    assert run_python(script).stdout.split()[-1] == str(expected)


def test_fork_stays_the_default(run_python: RunPython, tiny_model: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import mindspore\n" + CONFIGURE.format(model=str(tiny_model)) + UNGUARDED)
    assert "start method: None" in run_python(script).stdout


def test_spawn_with_a_warning_after_an_op(
    run_python: RunPython, tiny_model: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(RUN_OP + CONFIGURE.format(model=str(tiny_model)) + GUARDED)
    result = run_python(script)
    assert "start method: spawn" in result.stdout
    assert "a forked engine would hang" in result.stdout + result.stderr


@pytest.mark.parametrize("use", [RUN_OP, SET_THREADS], ids=["op", "threads"])
def test_error_after_use_without_main_guard(
    run_python: RunPython, tiny_model: Path, tmp_path: Path, use: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(use + CONFIGURE.format(model=str(tiny_model)) + UNGUARDED)
    result = run_python(script, check=False)
    assert result.returncode == 1
    assert f"imports {script} again, which has no main guard" in result.stderr
    assert "if __name__ == '__main__':" in result.stderr


@pytest.mark.parametrize("use", [RUN_OP, SET_THREADS], ids=["op", "threads"])
def test_engine_in_this_process_is_refused_after_use(
    run_python: RunPython, tiny_model: Path, tmp_path: Path, use: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(use + CONFIGURE.format(model=str(tiny_model)) + UNGUARDED)
    result = run_python(script, env={"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}, check=False)
    assert result.returncode == 1
    assert "cannot be set up for a worker" in result.stderr
    assert "create the LLM before the first MindSpore op" in result.stderr


def test_spawned_child_that_imports_the_script_says_why(
    run_python: RunPython, tiny_model: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(CONFIGURE.format(model=str(tiny_model)) + SPAWN_CHILD)
    result = run_python(script)
    assert "exit code of the child: 1" in result.stdout
    assert "spawned child that imports the main script" in result.stderr


@pytest.mark.parametrize(
    ("source", "guarded"),
    [
        ("if __name__ == '__main__':\n    pass", True),
        ("if '__main__' == __name__ and True:\n    pass", True),
        ("print(__name__)", False),
        ("def main():\n    if __name__ == '__main__':\n        pass", False),
        ("# if __name__ == '__main__':", False),
    ],
)
def test_main_guard_is_found_in_the_syntax(tmp_path: Path, source: str, guarded: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(source)
    assert process_start._has_main_guard(script) is guarded
