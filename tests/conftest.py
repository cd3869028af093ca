# SPDX-License-Identifier: Apache-2.0
"""What every test gets: no network, fixed seeds, the tiny model, child Python processes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Read when transformers and vLLM are imported, so set before any test module is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["VLLM_NO_USAGE_STATS"] = "1"
os.environ.pop("VLLM_LOGGING_LEVEL", None)  # tests wait for lines in servers' logs

# For child processes: without what activation and other tests set later.
ENVIRONMENT = dict(os.environ)
ROOT = Path(__file__).resolve().parents[1]
# Options of a server: users' servers may have the usual port.
ANY_PORT = ("--host", "127.0.0.1", "--port", "0")
RunPython = Callable[..., subprocess.CompletedProcess[str]]
Configure = Callable[..., Any]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--tiny-model`: another folder in place of the bundled model."""
    parser.addoption(
        "--tiny-model",
        default=str(ROOT / "examples" / "tiny_model" / "model"),
        help="model folder for the tests (default: the bundled tiny model)",
    )


@pytest.fixture(scope="session")
def tiny_model(pytestconfig: pytest.Config) -> Path:
    """Folder of the tiny model."""
    folder = Path(pytestconfig.getoption("--tiny-model"))
    assert (folder / "config.json").is_file(), f"no model in {folder}"
    return folder


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """The same random numbers in every test, whatever ran before."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def mindspore_runtime() -> None:
    """MindSpore set up as in a worker. Tests that run its operators in this process need it
    before the first one: a process is set up once, and engines of other tests need this set-up."""
    from vllm_mindspore.device.runtime import start_runtime
    from vllm_mindspore.device.threads import threads_per_rank

    start_runtime(threads_per_rank(1))


@pytest.fixture(scope="session")
def configure(tiny_model: Path) -> Configure:
    """VllmConfig of a small engine in this process; keyword arguments are EngineArgs'."""
    from vllm.engine.arg_utils import EngineArgs

    small = {"dtype": "float32", "max_model_len": 128, "max_num_batched_tokens": 32}
    small |= {"max_num_seqs": 4, "skip_tokenizer_init": True}

    def make(**options: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
            return EngineArgs(str(tiny_model), **(small | options)).create_engine_config()

    return make


@pytest.fixture
def run_python(tmp_path: Path) -> RunPython:
    """Runs Python code (or a script file) in a fresh process, in an empty folder.

    Keyword arguments: `env` is added to the session's environment (None removes a name), `flags`
    go to the interpreter, `timeout` is in seconds, `check` (default True) asserts exit code 0.
    """

    def run(
        code: str | Path,
        *,
        env: Mapping[str, str | None] | None = None,
        flags: Sequence[str] = (),
        timeout: float = 240,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        target = [str(code)] if isinstance(code, Path) else ["-c", code]
        merged = {**ENVIRONMENT, **(env or {})}
        result = subprocess.run(
            [sys.executable, *flags, *target],
            env={name: value for name, value in merged.items() if value is not None},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert result.returncode == 0, _failure(result)
        return result

    return run


def _failure(result: subprocess.CompletedProcess[str]) -> str:
    """The reason first: whoever shows a long message shows its beginning."""
    output = result.stdout.splitlines()
    errors = [line[:400] for line in output if "ERROR" in line or "Error" in line]
    return "\n".join(
        [
            f"exit code {result.returncode}; end of its errors:",
            result.stderr[-3000:],
            *("errors in its output:", *errors[-40:]),
            *("all of its output:", *output),
        ]
    )
