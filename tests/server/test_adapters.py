# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters over HTTP: given at start, loaded and unloaded while the server runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI
from transformers import AutoModelForCausalLM

from tests.model_executor.model_loader.adapters import ALL, linear_shapes, write_adapter
from tests.server.conftest import START_SECONDS
from tests.server.test_completions import PROMPT, TOKENS
from vllm_mindspore.cli.server import Server


@pytest.fixture(scope="module")
def folders(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    shapes = linear_shapes(AutoModelForCausalLM.from_pretrained(tiny_model), ALL)
    folder = tmp_path_factory.mktemp("adapters")
    return {
        name: write_adapter(folder / name, shapes, rank=4, alpha=16, seed=seed)
        for seed, name in enumerate(("first", "second"))
    }


@pytest.fixture(scope="module")
def lora_server(
    tiny_model: Path, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    options = [
        *("--served-model-name", "tiny", "--dtype", "float32", "--max-model-len", "512"),
        *("--enable-lora", "--max-loras", "2", "--max-num-seqs", "8"),
        *("--lora-modules", f"first={folders['first']}"),
    ]
    log = tmp_path_factory.mktemp("lora_server") / "log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")
        with Server(str(tiny_model), log, options) as server:
            server.wait_until_ready(START_SECONDS, lambda seconds: None)
            yield server


def text(server: Server, model: str) -> str:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        answer = client.completions.create(
            model=model, prompt=PROMPT, max_tokens=TOKENS, temperature=0
        )
        return answer.choices[0].text


def post(server: Server, name: str, body: dict[str, str]) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/{name}", json=body, timeout=60)


def test_adapters_are_models_of_their_own(
    lora_server: Server, folders: dict[str, Path], greedy_texts: dict[str, str]
) -> None:
    plain, first = text(lora_server, "tiny"), text(lora_server, "first")
    assert greedy_texts[PROMPT].startswith(plain)
    assert first != plain
    with pytest.raises(openai.NotFoundError):
        text(lora_server, "second")
    body = {"lora_name": "second", "lora_path": str(folders["second"])}
    assert post(lora_server, "load_lora_adapter", body).status_code == 200
    assert text(lora_server, "second") not in (plain, first)
    listed = httpx.get(f"{lora_server.url}/v1/models").json()["data"]
    assert {entry["id"] for entry in listed} == {"tiny", "first", "second"}
    assert post(lora_server, "unload_lora_adapter", {"lora_name": "second"}).status_code == 200
    with pytest.raises(openai.NotFoundError):
        text(lora_server, "second")
    assert text(lora_server, "first") == first


def test_a_broken_adapter_is_refused_and_the_server_goes_on(
    lora_server: Server, folders: dict[str, Path], tmp_path: Path
) -> None:
    broken = write_adapter(tmp_path / "broken", {"model.layers.99.mlp.up_proj": (4, 4)})
    answer = post(
        lora_server, "load_lora_adapter", {"lora_name": "broken", "lora_path": str(broken)}
    )
    assert answer.status_code == 500  # what vLLM answers when a worker refuses an adapter
    assert "no linear layer" in answer.text
    assert text(lora_server, "tiny")
