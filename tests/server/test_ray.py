# SPDX-License-Identifier: Apache-2.0
"""A server whose worker is a Ray actor: the same texts, and Ray ends with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from openai import OpenAI

from tests.server.conftest import START_SECONDS
from tests.server.processes import Family
from tests.server.test_completions import PROMPT, TOKENS
from vllm_mindspore.cli.server import Server

STOP_SECONDS = 10
THREADS = 3
CACHE_BYTES = 64 << 20


def test_server_with_a_cluster_of_its_own(
    tiny_model: Path,
    greedy_texts: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")  # whatever else runs on this machine
    monkeypatch.setenv("VLLM_MS_NUM_THREADS", str(THREADS))
    options = [
        *("--served-model-name", "tiny", "--dtype", "float32", "--max-model-len", "512"),
        *("--distributed-executor-backend", "ray", "--kv-cache-memory-bytes", str(CACHE_BYTES)),
    ]
    with Server(str(tiny_model), tmp_path / "log", options) as server:
        server.wait_until_ready(START_SECONDS, lambda seconds: None)
        family = Family.of(server)
        assert family.named("ray::RayWorkerProc")
        assert family.named("gcs_server")
        url = f"{server.url}/v1"
        with OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120) as client:
            completion = client.completions.create(
                model="tiny", prompt=PROMPT, max_tokens=TOKENS, temperature=0
            )
        text = completion.choices[0].text
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert len(text) > TOKENS
    assert greedy_texts[PROMPT].startswith(text)
    assert f", {THREADS} threads" in log
    assert f" {CACHE_BYTES} bytes (" in log
    assert "Traceback" not in log
    family.assert_gone(STOP_SECONDS)
