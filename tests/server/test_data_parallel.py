# SPDX-License-Identifier: Apache-2.0
"""Two engines behind one server: they share the requests, the cores and the memory."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from tests.server.conftest import START_SECONDS
from tests.server.processes import Family
from tests.server.test_completions import PROMPT, TOKENS
from vllm_mindspore.cli.server import Server
from vllm_mindspore.device.threads import usable_cores

STOP_SECONDS = 20
REQUESTS = 12


def finished_by_engine(url: str) -> dict[str, float]:
    """Engine number -> requests it has completed."""
    metrics = httpx.get(f"{url}/metrics").text
    pattern = r'^vllm:request_success_total\{engine="(\d+)",finished_reason="length".*\} (\S+)$'
    return {engine: float(n) for engine, n in re.findall(pattern, metrics, re.MULTILINE)}


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.full)])
def test_engines_share_the_requests(
    ranks: int, tiny_model: Path, greedy_texts: dict[str, str], tmp_path: Path
) -> None:
    """Each of them alone, or of two ranks."""
    options = [
        *("--served-model-name", "tiny", "--dtype", "float32", "--max-model-len", "512"),
        *("--data-parallel-size", "2", "--max-num-seqs", "8", "--kv-cache-memory-bytes", "64M"),
        *("--tensor-parallel-size", str(ranks)),
    ]
    with Server(str(tiny_model), tmp_path / "log", options) as server:
        server.wait_until_ready(ranks * START_SECONDS, lambda seconds: None)
        family = Family.of(server)
        client = OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120)

        def answer(_: int) -> str:
            completion = client.completions.create(
                model="tiny", prompt=PROMPT, max_tokens=TOKENS, temperature=0
            )
            return completion.choices[0].text

        with client, ThreadPoolExecutor(REQUESTS) as pool:
            texts = list(pool.map(answer, range(REQUESTS)))
        served = finished_by_engine(server.url)
    log = (tmp_path / "log").read_text()
    assert len(set(texts)) == 1
    assert texts[0]
    assert greedy_texts[PROMPT].startswith(texts[0])
    assert set(served) == {"0", "1"}
    assert min(served.values()) > 0
    assert sum(served.values()) == REQUESTS
    threads = max(1, usable_cores() // (2 * ranks))
    assert len(re.findall(rf"MindSpore \S+ on CPU: .*, {threads} threads", log)) == 2 * ranks
    family.assert_gone(STOP_SECONDS)
