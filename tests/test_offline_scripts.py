# SPDX-License-Identifier: Apache-2.0
"""Scripts as the documents print them, with real engines: they run or say why not; no hangs."""

from __future__ import annotations

import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

RunPython = Callable[..., subprocess.CompletedProcess[str]]

IMPORTS = {
    "ours_first": "import vllm_mindspore\nfrom vllm import LLM, SamplingParams\n",
    "vllm_first": "from vllm import LLM, SamplingParams\nimport vllm_mindspore\n",
    "mindspore_unused": "import mindspore\nimport vllm_mindspore\n"
    "from vllm import LLM, SamplingParams\n",
}
RUN_OP = "import mindspore as ms; ms.set_context(mode=1); t = ms.Tensor([1.0]); t + t\n"
GENERATE = """
prompts = ["I am", "Today is", "Llama is"]
sampling_params = SamplingParams(temperature=0.0, top_p=0.95)
llm = LLM(model={model!r})
outputs = llm.generate(prompts, sampling_params)
for output in outputs:
    prompt = output.prompt
    generated_text = output.outputs[0].text
    print(f"Prompt: {{prompt!r}}, Generated text: {{generated_text!r}}")
"""


def generate(model: Path) -> str:
    return GENERATE.format(model=str(model))


def guarded(program: str) -> str:
    return "if __name__ == '__main__':\n" + textwrap.indent(program, "    ")


def assert_generated(result: subprocess.CompletedProcess[str]) -> None:
    lines = [line for line in result.stdout.splitlines() if line.startswith("Prompt: ")]
    assert [line.split(",")[0] for line in lines] == [
        "Prompt: 'I am'",
        "Prompt: 'Today is'",
        "Prompt: 'Llama is'",
    ]
    assert all(len(line.split("Generated text: ")[1]) > 10 for line in lines)


@pytest.fixture(autouse=True)
def _no_orphans(tmp_path: Path) -> Iterator[None]:
    """No process may be left that runs in the folder of the script."""
    yield
    left = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == tmp_path:
                left.append(process)
        except (psutil.Error, OSError):
            continue
    assert not left


@pytest.mark.parametrize(
    "imports",
    ["ours_first", "vllm_first", pytest.param("mindspore_unused", marks=pytest.mark.full)],
)
def test_without_main_guard(
    run_python: RunPython, tiny_model: Path, tmp_path: Path, imports: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(IMPORTS[imports] + generate(tiny_model))
    assert_generated(run_python(script))


@pytest.mark.full
def test_engine_in_the_same_process(
    run_python: RunPython, tiny_model: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(IMPORTS["ours_first"] + generate(tiny_model))
    assert_generated(run_python(script, env={"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}))


@pytest.mark.full
def test_after_an_op_with_main_guard(
    run_python: RunPython, tiny_model: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(guarded(RUN_OP + IMPORTS["ours_first"] + generate(tiny_model)))
    assert_generated(run_python(script))


def test_spawn_without_main_guard_is_an_error(
    run_python: RunPython, tiny_model: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(IMPORTS["ours_first"] + generate(tiny_model))
    result = run_python(script, env={"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}, check=False)
    assert result.returncode != 0
    assert "spawned child that imports the main script" in result.stdout + result.stderr
