# SPDX-License-Identifier: Apache-2.0
"""The users' document about W8A8SC as written: its environment, its command, its request."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.server.conftest import START_SECONDS
from tests.server.processes import Family
from vllm_mindspore.cli import main
from vllm_mindspore.cli.server import Server

STOP_SECONDS = 20
TWO_RANKS_START_SECONDS = 2 * START_SECONDS  # each imports what one does
ENVIRONMENT = {
    "VLLM_MS_MODEL_BACKEND": "Native",
    "MS_ENABLE_LCCL": "off",
    "HCCL_OP_EXPANSION_MODE": "AI_CPU",
    "MS_ENABLE_INTERNAL_BOOST": "off",
    "MS_ALLOC_CONF": "enable_vmm:true",
    "MS_INTERNAL_ENABLE_CUSTOM_KERNEL_LIST": "RmsNormQuant",
}
# tiny_model's max_position_embeddings is 32768, so the document's --max-model-len needs nothing.
OPTIONS = [
    *("--quantization", "golden-stick", "--load-format", "sparse_quant", "--trust_remote_code"),
    *("--tensor_parallel_size=2", "--max-num-seqs=256", "--block-size=128"),
    *("--gpu-memory-utilization=0.8", "--max-num-batched-tokens=16384", "--max-model-len=32768"),
]


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model, half of its weights zero, for two ranks."""
    made = tmp_path / "Tiny-W8A8SC-TP2"
    arguments = ["quantize", str(tiny_model), "--output", str(made), "--scheme", "w8a8sc"]
    arguments += ["--sparsity", "0.5", "--tensor-parallel-size", "2"]
    arguments += ["--calibration-samples", "8", "--calibration-tokens", "128"]
    assert main.main(arguments) == 0
    return made


@pytest.mark.skipif(shutil.which("curl") is None, reason="the document's request is curl")
def test_the_document(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    body = {
        "model": str(folder),
        "prompt": "Introduce the Forbidden City in Beijing",
        "max_tokens": 120,
        "temperature": 0,
    }
    with Server(str(folder), tmp_path / "log", OPTIONS) as server:
        server.wait_until_ready(TWO_RANKS_START_SECONDS, lambda seconds: None)
        family = Family.of(server)
        answers = [curl(f"{server.url}/v1/completions", body) for _ in range(2)]
    log = (tmp_path / "log").read_text()
    for answer in answers:
        assert answer["object"] == "text_completion"
        assert answer["choices"][0]["text"]
        assert answer["usage"]["completion_tokens"] <= 120
    assert answers[0]["choices"][0]["text"] == answers[1]["choices"][0]["text"]
    assert log.count("W8A8SC weights") == 2  # both ranks say so
    assert "Application startup complete." in log
    family.assert_gone(STOP_SECONDS)


def curl(url: str, body: dict[str, object]) -> dict[str, list[dict[str, str]] | dict[str, int]]:
    """The document's request."""
    command = ["curl", "--fail", "--silent", "--show-error", "--max-time", "120", url]
    command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found
