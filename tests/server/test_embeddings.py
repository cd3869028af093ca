# SPDX-License-Identifier: Apache-2.0
"""Embeddings and scores over HTTP, by the stock client and plain requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from openai import OpenAI
from transformers import AutoTokenizer, Qwen3Model

from tests.server.conftest import START_SECONDS
from vllm_mindspore.cli.server import Server

TEXTS = ["A cat sat by the river.", "The fisher was happy."]
# fp32 values of a unit vector.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def pooling_server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = [
        *("--served-model-name", "tiny", "--dtype", "float32", "--max-model-len", "512"),
        *("--runner", "pooling", "--max-num-seqs", "8"),
    ]
    log = tmp_path_factory.mktemp("pooling_server") / "log"
    with Server(str(tiny_model), log, options) as server:
        server.wait_until_ready(START_SECONDS, lambda seconds: None)
        yield server


@pytest.fixture(scope="module")
def expected(tiny_model: Path) -> torch.Tensor:
    """Normalised last hidden states, as transformers computes them."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = Qwen3Model.from_pretrained(tiny_model, dtype=torch.float32).eval()
    with torch.no_grad():
        last = [
            model(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0, -1]
            for text in TEXTS
        ]
    return torch.nn.functional.normalize(torch.stack(last), dim=-1)


def test_embeddings(pooling_server: Server, expected: torch.Tensor) -> None:
    with OpenAI(base_url=f"{pooling_server.url}/v1", api_key="none", max_retries=0) as client:
        answer = client.embeddings.create(model="tiny", input=TEXTS, encoding_format="float")
    found = torch.tensor([entry.embedding for entry in answer.data])
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


def test_scores(pooling_server: Server, expected: torch.Tensor) -> None:
    body = {"model": "tiny", "text_1": TEXTS[0], "text_2": TEXTS}
    answer = httpx.post(f"{pooling_server.url}/score", json=body, timeout=60).json()
    found = [entry["score"] for entry in answer["data"]]
    assert found == pytest.approx([1.0, float(expected[0] @ expected[1])], abs=TOLERANCE)


def test_generation_is_not_offered(pooling_server: Server) -> None:
    body = {"model": "tiny", "prompt": "Once", "max_tokens": 2}
    assert httpx.post(f"{pooling_server.url}/v1/completions", json=body).status_code in (400, 404)
