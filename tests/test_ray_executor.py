# SPDX-License-Identifier: Apache-2.0
"""Engines in a Ray cluster that the user has: joined, left as it was, or refused by name.

The cluster that an engine starts itself is tested with a server, in `server/test_ray.py`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vllm_mindspore.ray_executor import RayExecutor

RunPython = Callable[..., subprocess.CompletedProcess[str]]
Configure = Callable[..., Any]

PROMPT = "Once upon a time"
TOKENS = 40
NOWHERE = "127.0.0.1:1"
THREADS = 3
CACHE_BYTES = 128 << 20
START = """
import json, os
import ray
from vllm import LLM, EngineArgs, SamplingParams

ray.init("local", num_cpus=1, resources={resources}, include_dashboard=False)
options = dict(
    model={model!r}, dtype="float32", max_model_len=512, distributed_executor_backend="ray"
)
"""
JOIN = """
errors = []
try:
    EngineArgs(**options).create_engine_config()
except ValueError as error:
    errors.append(str(error))
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_MS_NUM_THREADS"] = "{threads}"  # the cluster has been started without it
os.environ["VLLM_MS_KV_CACHE_MAX_GB"] = "{gigabytes}"
llm = LLM(**options)
(output,) = llm.generate({prompt!r}, SamplingParams(temperature=0, max_tokens={tokens}))
taken = ray.available_resources().get("NPU", 0)
llm.llm_engine.engine_core.shutdown()
print("RESULT", json.dumps([errors, output.outputs[0].text, taken, ray.is_initialized()]))
import time
end = time.monotonic() + 20
while ray.available_resources().get("NPU", 0) < 1:
    assert time.monotonic() < end, "the place of the worker was not given back"
    time.sleep(0.1)
"""
REFUSED = """
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
try:
    LLM(**options)
except ValueError as error:
    print("REFUSED", error)
print("CONNECTED", ray.is_initialized())
"""


def test_joins_the_cluster_of_its_process(run_python: RunPython, tiny_model: Path) -> None:
    program = START.format(resources={"NPU": 1}, model=str(tiny_model)) + JOIN.format(
        threads=THREADS, gigabytes=CACHE_BYTES / (1 << 30), prompt=PROMPT, tokens=TOKENS
    )
    result = run_python(program)
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("RESULT ")]
    errors, text, free_places, connected = json.loads(line.removeprefix("RESULT "))
    (error,) = errors  # of an engine in a process of its own
    assert "after ray.init()" in error
    assert "VLLM_ENABLE_V1_MULTIPROCESSING=0" in error
    card = json.loads((tiny_model.parent / "model_card.json").read_text(encoding="utf-8"))
    assert len(text) > TOKENS
    assert card["greedy_float32"][PROMPT].startswith(text)
    assert free_places == 0
    assert connected  # the cluster is the user's
    log = result.stdout + result.stderr
    assert f", {THREADS} threads" in log
    assert f" {CACHE_BYTES} bytes (" in log


def test_cluster_without_a_place_is_refused(run_python: RunPython, tiny_model: Path) -> None:
    result = run_python(START.format(resources={}, model=str(tiny_model)) + REFUSED)
    assert "REFUSED The Ray cluster has 0 of the resource NPU" in result.stdout
    assert """`ray start --head --resources='{"NPU": 1}'`""" in result.stdout
    assert "CONNECTED True" in result.stdout


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        (NOWHERE, ConnectionError, f"RAY_ADDRESS names {NOWHERE}, where no Ray cluster listens"),
        (f"ray://{NOWHERE}", ValueError, f"RAY_ADDRESS=ray://{NOWHERE}: expected HOST:PORT"),
    ],
)
def test_address_without_a_cluster_is_an_error(
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    error: type[Exception],
    message: str,
) -> None:
    config = configure(distributed_executor_backend="ray")
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(error, match=message):
        RayExecutor(config)


@pytest.mark.full
def test_without_ray_the_extra_is_named(run_python: RunPython, tiny_model: Path) -> None:
    program = f"""
import sys
sys.modules["ray"] = None  # as if it were not installed
from vllm import LLM
LLM({str(tiny_model)!r}, max_model_len=512, distributed_executor_backend="ray")
"""
    result = run_python(program, check=False)
    assert result.returncode != 0
    assert "pip install 'vllm-mindspore[ray]'" in result.stderr
