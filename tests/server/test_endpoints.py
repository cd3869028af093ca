# SPDX-License-Identifier: Apache-2.0
"""The endpoints beside the client's, and the documents' curl command."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conftest import MAX_MODEL_LEN, MODEL
from vllm_mindspore.cli.server import Server

# What the documents show for a completion, with the types of the values.
COMPLETION: dict[str, Any] = {
    **{"id": str, "object": "text_completion", "created": int},
    **{"service_tier": None, "system_fingerprint": (str, type(None)), "kv_transfer_params": None},
}
CHOICE = {
    **{"index": 0, "text": str, "logprobs": None, "finish_reason": "length"},
    **{"stop_reason": None, "token_ids": None, "prompt_logprobs": None, "prompt_token_ids": None},
}


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as connection:
        yield connection


def test_health(http: httpx.Client) -> None:
    answer = http.get("/health")
    assert (answer.status_code, answer.content) == (200, b"")


def test_version(http: httpx.Client) -> None:
    assert http.get("/version").json() == {"version": version("vllm")}


def test_models(http: httpx.Client, tiny_model: Path) -> None:
    served = http.get("/v1/models").json()["data"]
    assert [model["id"] for model in served] == [str(tiny_model), MODEL]
    assert {model["max_model_len"] for model in served} == {MAX_MODEL_LEN}


@pytest.mark.parametrize("text", ["Once upon a time", "Zürich 東京 🦊", " "])
def test_tokenize_and_back(http: httpx.Client, tiny_model: Path, text: str) -> None:
    from tokenizers import Tokenizer

    expected = Tokenizer.from_file(str(tiny_model / "tokenizer.json")).encode(text).ids
    found = http.post("/tokenize", json={"model": MODEL, "prompt": text}).json()
    assert (found["tokens"], found["count"]) == (expected, len(expected))
    back = http.post("/detokenize", json={"model": MODEL, "tokens": expected}).json()
    assert back == {"prompt": text}


def test_tokenize_a_conversation(http: httpx.Client) -> None:
    conversation = [{"role": "user", "content": "Hello"}]
    found = http.post("/tokenize", json={"model": MODEL, "messages": conversation}).json()
    text = http.post("/detokenize", json={"model": MODEL, "tokens": found["tokens"]}).json()
    assert text["prompt"] == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


def counter(http: httpx.Client, name: str) -> float:
    found = re.search(rf"^vllm:{name}{{[^}}]*}} (\S+)$", http.get("/metrics").text, re.MULTILINE)
    assert found, f"no vllm:{name}"
    return float(found.group(1))


def test_metrics_count(http: httpx.Client) -> None:
    names = ("prompt_tokens_total", "generation_tokens_total")
    before = [counter(http, name) for name in names]
    request = {"model": MODEL, "prompt": [5, 6, 7], "max_tokens": 4, "ignore_eos": True}
    assert http.post("/v1/completions", json=request).status_code == 200
    assert [counter(http, name) for name in names] == [before[0] + 3, before[1] + 4]
    assert counter(http, "num_requests_running") == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl (apt-get install curl)")
def test_curl_of_the_documents(server: Server, tiny_model: Path) -> None:
    request = {
        **{"model": str(tiny_model), "prompt": "Introduce the Forbidden City in Beijing"},
        **{"max_tokens": 120, "temperature": 0, "ignore_eos": True},
    }
    # As the documents write it, one slash included; a client takes the address for this one.
    address = f"{server.url}/v1/completions".replace("http://", "http:/")
    command = ["curl", "--silent", "--show-error", address]
    command += ["-H", "Content-Type: application/json", "-d", json.dumps(request)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    answer = json.loads(result.stdout)
    (choice,) = answer["choices"]
    assert answer["model"] == str(tiny_model)
    assert_shape(answer, COMPLETION)
    assert_shape(choice, CHOICE)
    usage = answer["usage"]
    assert usage["completion_tokens"] == 120
    assert usage["total_tokens"] == usage["prompt_tokens"] + 120
    assert usage["prompt_tokens_details"] is None


def assert_shape(found: dict[str, Any], shape: dict[str, Any]) -> None:
    """Every name of `shape` is there, with the value or a value of the type."""
    for name, expected in shape.items():
        assert name in found, f"{name} is missing"
        if isinstance(expected, type | tuple):
            assert isinstance(found[name], expected), name
        else:
            assert found[name] == expected, name
