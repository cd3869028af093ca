# SPDX-License-Identifier: Apache-2.0
"""Completions and chat through the stock client; texts are those of transformers."""

from __future__ import annotations

import math

import pytest
from openai import OpenAI
from openai.types import CompletionChoice

from tests.server.conftest import MODEL, chat_message

PROMPT = "Once upon a time"
TOKENS = 40


def test_completion(client: OpenAI, greedy_texts: dict[str, str]) -> None:
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=TOKENS, temperature=0)
    (choice,) = answer.choices
    assert (answer.object, choice.finish_reason) == ("text_completion", "length")
    assert len(choice.text) > TOKENS
    assert greedy_texts[PROMPT].startswith(choice.text)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == TOKENS
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + TOKENS


def test_streamed_completion_is_the_same(client: OpenAI, greedy_texts: dict[str, str]) -> None:
    stream = client.completions.create(
        model=MODEL,
        prompt=PROMPT,
        max_tokens=TOKENS,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    pieces = [choice.text for chunk in chunks for choice in chunk.choices]
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    assert len(pieces) > TOKENS / 2  # piece by piece, not at the end
    assert greedy_texts[PROMPT].startswith("".join(pieces))
    assert reasons[-1] == "length"
    assert not any(reasons[:-1])
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == TOKENS


def test_several_prompts_and_answers(client: OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt=[PROMPT, "The fox"], n=3, max_tokens=12, temperature=1.0, seed=1
    )
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert len({choice.text for choice in answer.choices}) > 2


def test_stop_string_and_echo(client: OpenAI, greedy_texts: dict[str, str]) -> None:
    answer = client.completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=60, temperature=0, stop=["Mia never"], echo=True
    )
    (choice,) = answer.choices
    assert choice.finish_reason == "stop"
    assert choice.text == PROMPT + greedy_texts[PROMPT].split("Mia never")[0]


def test_log_probabilities_of_a_completion(client: OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=6, temperature=0, logprobs=3
    )
    (choice,) = answer.choices
    found = choice.logprobs
    assert found is not None
    assert found.tokens
    assert found.token_logprobs
    assert found.top_logprobs
    assert "".join(found.tokens) == choice.text
    for token, value, best in zip(
        found.tokens, found.token_logprobs, found.top_logprobs, strict=True
    ):
        assert value is not None
        assert best[token] == value == max(best.values())  # greedy
        assert sum(math.exp(item) for item in best.values()) <= 1.00001


def test_prompt_log_probabilities(client: OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=1, extra_body={"prompt_logprobs": 0}
    )
    first, *others = prompt_logprobs(answer.choices[0])
    assert first is None
    assert len(others) == 3
    for item in others:
        assert item is not None
        (described,) = item.values()
        assert -1 < described["logprob"] <= 0  # the model was trained on this beginning


def prompt_logprobs(choice: CompletionChoice) -> list[dict[str, dict[str, float]] | None]:
    """vLLM's addition to the choice, which the client keeps as it is."""
    found: list[dict[str, dict[str, float]] | None] = choice.prompt_logprobs  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("question", ["Where does the fox live?", "What does Mia do for work?"])
def test_chat(client: OpenAI, greedy_texts: dict[str, str], question: str, stream: bool) -> None:
    request = {"model": MODEL, "messages": chat_message(question), "temperature": 0}
    if not stream:
        answer = client.chat.completions.create(**request, max_tokens=TOKENS)
        (choice,) = answer.choices
        text, reason = choice.message.content, choice.finish_reason
        assert choice.message.role == "assistant"
    else:
        chunks = list(client.chat.completions.create(**request, max_tokens=TOKENS, stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        reason = chunks[-1].choices[0].finish_reason
    assert (text, reason) == (greedy_texts[question], "stop")


def test_log_probabilities_of_a_chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=chat_message("Where does the fox live?"),
        temperature=0,
        max_tokens=4,
        logprobs=True,
        top_logprobs=2,
    )
    (choice,) = answer.choices
    assert choice.logprobs is not None
    assert choice.logprobs.content
    assert "".join(item.token for item in choice.logprobs.content) == choice.message.content
    for item in choice.logprobs.content:
        assert len(item.top_logprobs) == 2
        assert item.top_logprobs[0].logprob == item.logprob <= 0
