# SPDX-License-Identifier: Apache-2.0
"""One server for all requests of the session, and the stock client that talks to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from vllm_mindspore.cli.server import Server

START_SECONDS = 300.0
MODEL = "tiny"
MAX_MODEL_LEN = 1024


@pytest.fixture(scope="session")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A ready server on the tiny model in float32, with tool calls."""
    options = [
        *("--served-model-name", str(tiny_model), MODEL, "--dtype", "float32"),
        *("--max-model-len", str(MAX_MODEL_LEN), "--max-num-seqs", "16"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    ]
    log = tmp_path_factory.mktemp("server") / "log"
    with Server(str(tiny_model), log, options) as running:
        running.wait_until_ready(START_SECONDS, lambda seconds: None)
        yield running


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a server runs and puts its temporary files; short, sockets have 107 characters."""
    folder = tmp_path_factory.mktemp("s")
    (folder / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(folder / "temporary"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[OpenAI]:
    """The stock client; it does not try again, so that every failure is seen."""
    with OpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120
    ) as stock_client:
        yield stock_client


@pytest.fixture(scope="session")
def greedy_texts(tiny_model: Path) -> dict[str, str]:
    """Prompt or question -> greedy float32 text, as transformers on torch writes it."""
    card = json.loads((tiny_model.parent / "model_card.json").read_text(encoding="utf-8"))
    texts: dict[str, str] = card["greedy_float32"]
    return texts


def chat_message(content: str) -> list[Any]:
    """A conversation of one question."""
    return [{"role": "user", "content": content}]
