# SPDX-License-Identifier: Apache-2.0
"""The HTTP engine: what it sends, how it reads answers, and its errors."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from vllm_mindspore.evaluation.engines import ServerEngine
from vllm_mindspore.evaluation.errors import EvaluationError

Oracle = Any  # the class lives in conftest.py, which tests do not import


def engine(oracle: Oracle, model: str | None = None) -> ServerEngine:
    return ServerEngine(oracle.url, model, concurrency=3)


def test_the_only_served_model_is_the_default(oracle: Oracle) -> None:
    found = engine(oracle)
    assert (found.model, found.max_model_len) == ("oracle", 64)
    assert ServerEngine(oracle.url + "/v1/", "oracle", 1).model == "oracle"


def test_an_unknown_model_lists_the_served_ones(oracle: Oracle) -> None:
    oracle.models = ["one", "two"]
    with pytest.raises(EvaluationError, match="serves one, two; asked for three"):
        engine(oracle, "three")
    with pytest.raises(EvaluationError, match="serves one, two; name the model to measure"):
        engine(oracle)
    assert engine(oracle, "two").model == "two"


def test_completions_are_greedy_and_in_order(oracle: Oracle) -> None:
    prompts = [f"prompt {i}" for i in range(20)]
    oracle.answers = {prompt: f" answer {i}" for i, prompt in enumerate(prompts)}
    assert engine(oracle).complete(prompts, 5) == [f" answer {i}" for i in range(20)]
    path, body = oracle.requests[0]
    assert path == "/v1/completions"
    expected = {"model": "oracle", "max_tokens": 5, "temperature": 0.0, "top_p": 1.0}
    assert expected.items() <= body.items()
    assert body["repetition_penalty"] == 1.0
    assert body["stop"] == ["\n"]


def test_chat_sends_messages_and_takes_null_as_nothing(oracle: Oracle) -> None:
    oracle.answers = {"hello": "hi"}
    talks = [[{"role": "user", "content": text}] for text in ("hello", "unknown")]
    assert engine(oracle).chat(talks, 7) == ["hi", ""]
    assert {path for path, _ in oracle.requests} == {"/v1/chat/completions"}
    assert all(body["max_tokens"] == 7 for _, body in oracle.requests)


def test_tokens_and_their_logprobs(oracle: Oracle) -> None:
    found = engine(oracle)
    assert found.tokenize(["ab", ""]) == [[97, 98], []]
    assert found.token_logprobs([[5, 20, 30], [1, 40]]) == [[-0.2, -0.3], [-0.4]]
    scoring = [body for path, body in oracle.requests if path == "/v1/completions"]
    assert all(body["prompt_logprobs"] == 0 for body in scoring)
    assert all(body["add_special_tokens"] is False for _, body in oracle.requests[:2])


def test_an_answer_without_prompt_logprobs_is_an_error(oracle: Oracle) -> None:
    found = engine(oracle)
    oracle.broken = '{"choices": [{"text": "", "prompt_logprobs": null}]}'
    with pytest.raises(EvaluationError, match="expected prompt_logprobs of 2 tokens, found none"):
        found.token_logprobs([[1, 2]])


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with pytest.raises(EvaluationError, match=f"no answer from {url}/v1/models: .*serve MODEL"):
        ServerEngine(url, None, 1)
    with pytest.raises(EvaluationError, match="no answer from nonsense/v1/models"):
        ServerEngine("nonsense", None, 1)


def test_errors_of_the_server_are_passed_on(oracle: Oracle) -> None:
    found = engine(oracle)
    oracle.status, oracle.broken = 400, '{"error": "too long"}'
    with pytest.raises(EvaluationError, match=r"/v1/completions answered 400: .*too long"):
        found.complete(["x"], 1)
    oracle.status, oracle.broken = 200, "<html>"
    with pytest.raises(EvaluationError, match="answered something that is not JSON"):
        found.complete(["x"], 1)
    oracle.broken = "{}"
    with pytest.raises(EvaluationError, match="answered without 'choices'"):
        found.complete(["x"], 1)
    with pytest.raises(EvaluationError, match="answered without 'data'"):
        engine(oracle)
