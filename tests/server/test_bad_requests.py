# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a request is its sender's to know: 4xx and a message, never 500."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.server.conftest import MAX_MODEL_LEN, MODEL, chat_message
from vllm_mindspore.cli.server import Server

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}

# Options of a completion, and what the message must name.
WRONG_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "negative_max_tokens": ({"max_tokens": -1}, "max_tokens must be at least 1"),
    "no_tokens": ({"max_tokens": 0}, "max_tokens must be at least 1"),
    "too_many_tokens": ({"max_tokens": MAX_MODEL_LEN + 1}, str(MAX_MODEL_LEN)),
    "max_tokens_beyond_int64": ({"max_tokens": 10**30}, str(MAX_MODEL_LEN)),
    "oversize_text": ({"prompt": "fox " * 5 * MAX_MODEL_LEN}, str(MAX_MODEL_LEN)),
    "oversize_tokens": ({"prompt": [7] * (MAX_MODEL_LEN + 1)}, str(MAX_MODEL_LEN)),
    "empty_prompt": ({"prompt": ""}, "prompt"),
    "no_prompts": ({"prompt": []}, "prompt"),
    "prompt_of_wrong_type": ({"prompt": {"a": 1}}, "prompt"),
    "lone_surrogate": ({"prompt": "\ud800"}, "TextEncodeInput"),
    "token_beyond_vocabulary": ({"prompt": [99999]}, "99999"),
    "token_beyond_int64": ({"prompt": [2**70]}, "vocabulary"),
    "negative_token": ({"prompt": [-1]}, "prompt"),
    "negative_temperature": ({"temperature": -1}, "temperature"),
    "temperature_of_text": ({"temperature": "warm"}, "temperature"),
    "nan_temperature": ({"temperature": float("nan")}, "temperature"),
    "infinite_temperature": ({"temperature": float("inf")}, "temperature"),
    "top_p": ({"top_p": 2}, "top_p"),
    "top_k": ({"top_k": -7}, "top_k"),
    "min_p": ({"min_p": 3}, "min_p"),
    "repetition_penalty": ({"repetition_penalty": 0}, "repetition_penalty"),
    "presence_penalty": ({"presence_penalty": -9}, "presence_penalty"),
    "no_answers": ({"n": 0}, "n must be at least 1"),
    "logprobs": ({"logprobs": 100}, "logprobs"),
    "logit_bias": ({"logit_bias": {"99999": 1}}, "99999"),
    "stop": ({"stop": 5}, "stop"),
    "lone_surrogate_in_stop": ({"stop": ["a", "\ud800"]}, "stop[1]: expected Unicode text"),
    "lone_surrogate_in_bad_words": ({"bad_words": ["\ud800"]}, "bad_words[0]"),
    "lone_surrogate_in_xargs": ({"vllm_xargs": {"a": "\ud800"}}, "extra_args['a']"),
    "top_k_beyond_64_bits": ({"top_k": 10**30}, "top_k: expected an integer"),
    "a_billion_elements": (
        {"structured_outputs": {"json": {"type": "array", "minItems": 10**9}}},
        "minItems=1e+09",
    ),
    "a_billion_numbers": (
        {"structured_outputs": {"json": {"type": "array", "maxItems": 10**9, "contains": {}}}},
        "maxItems=1e+09",
    ),
    "min_tokens": ({"min_tokens": 50}, "min_tokens"),
    "seed": ({"seed": 2**70}, "seed"),
    "allowed_token_ids": ({"allowed_token_ids": [99999]}, "allowed_token_ids"),
    "bad_words": ({"bad_words": [""]}, "bad_words"),
    "suffix": ({"suffix": "end"}, "suffix"),
    "prompt_embeds": ({"prompt_embeds": "AAAA"}, "prompt_embeds"),
    "regex": ({"structured_outputs": {"regex": "[a-"}}, "regex"),
    "grammar": ({"structured_outputs": {"grammar": "root ::= ("}}, "grammar"),
    "schema": ({"structured_outputs": {"json": {"type": "nonsense"}}}, "nonsense"),
    "two_forms": ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "only use one"),
    "unknown_form": ({"response_format": {"type": "xml"}}, "response_format"),
    "unknown_model": ({"model": "absent"}, "absent"),
}
WRONG_CHATS: dict[str, tuple[dict[str, Any], str]] = {
    "no_messages": ({"messages": []}, "message"),
    "oversize": ({"messages": chat_message("fox " * 5 * MAX_MODEL_LEN)}, str(MAX_MODEL_LEN)),
    "image": ({"messages": chat_message([IMAGE])}, "multimodal"),  # type: ignore[arg-type]
    "tool_choice_without_tools": ({"tool_choice": "required"}, "tools"),
    "unknown_tool": (
        {
            "tools": [{"type": "function", "function": {"name": "one", "parameters": {}}}],
            "tool_choice": {"type": "function", "function": {"name": "two"}},
        },
        "tool",
    ),
}
WRONG_BODIES = {
    "no_json": b"{bad json",
    "no_unicode": b"\xff\xfe{}",
    "nothing": b"",
    "list": b"[]",
    "text": b'"text"',
    "deep": b"[" * 100_000,
}


def refused(server: Server, path: str, body: bytes) -> tuple[int, str]:
    answer = httpx.post(
        server.url + path, content=body, headers={"Content-Type": "application/json"}, timeout=60
    )
    found = answer.json()
    return answer.status_code, found["error"]["message"] if "error" in found else found["detail"]


def encoded(request: dict[str, Any]) -> bytes:
    return json.dumps(request).encode()


@pytest.mark.parametrize("name", WRONG_OPTIONS)
def test_completion(server: Server, name: str) -> None:
    options, named = WRONG_OPTIONS[name]
    request = {"model": MODEL, "prompt": "Once", "max_tokens": 4} | options
    status, message = refused(server, "/v1/completions", encoded(request))
    assert status == (404 if name == "unknown_model" else 400), message
    assert named.lower() in message.lower()


@pytest.mark.parametrize("name", WRONG_CHATS)
def test_chat(server: Server, name: str) -> None:
    options, named = WRONG_CHATS[name]
    request = {"model": MODEL, "messages": chat_message("Hello"), "max_tokens": 4} | options
    status, message = refused(server, "/v1/chat/completions", encoded(request))
    assert status == 400, message
    assert named in message


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/tokenize"])
@pytest.mark.parametrize("name", WRONG_BODIES)
def test_body(server: Server, name: str, path: str) -> None:
    status, message = refused(server, path, WRONG_BODIES[name])
    assert 400 <= status < 500
    assert message


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/absent", 404),
        ("GET", "/v1/completions", 405),
        ("POST", "/v1/embeddings", 404),  # a text generation model
        ("POST", "/v1/load_lora_adapter", 404),
    ],
)
def test_path(server: Server, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, server.url + path, json={"model": MODEL, "input": "a"})
    assert answer.status_code == status


def test_server_is_well_afterwards(server: Server) -> None:
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert "Traceback" not in server.log.read_text(encoding="utf-8", errors="replace")
