# SPDX-License-Identifier: Apache-2.0
"""Structured output and tool calls: whatever the model would write, the answer has the form."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.server.conftest import MODEL, chat_message

CITIES = ["Oakham", "Pinecot"]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": CITIES},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "A forecast",
            "parameters": SCHEMA,
            "strict": True,
        },
    }
    for name in ("get_weather", "get_tide")
]
NAMED: Any = {"type": "function", "function": {"name": "get_tide"}}
QUESTION = "What is the weather in Pinecot?"


@pytest.fixture(scope="session")
def no_blanks(tiny_model: Path) -> dict[str, float]:
    """logit_bias against tokens of white space: between JSON's parts a small model loves them."""
    vocabulary = json.loads((tiny_model / "tokenizer.json").read_text())["model"]["vocab"]
    blank = re.compile("[ĊčĠĉ]+")  # newlines, space and tab in a byte-level vocabulary
    found = {str(token): -100.0 for text, token in vocabulary.items() if blank.fullmatch(text)}
    assert len(found) > 1
    return found


def ask(client: OpenAI, no_blanks: dict[str, float], **options: Any) -> Any:
    defaults = {"temperature": 0, "max_tokens": 100, "logit_bias": no_blanks}
    return client.chat.completions.create(
        model=MODEL, messages=chat_message(QUESTION), **(defaults | options)
    )


def assert_fits(text: str | None) -> None:
    found = json.loads(text or "")
    assert sorted(found) == ["city", "days"]
    assert found["city"] in CITIES
    assert found["days"] in range(1, 10)


def test_json_schema(client: OpenAI, no_blanks: dict[str, float]) -> None:
    wanted = {"name": "trip", "schema": SCHEMA, "strict": True}
    answer = ask(client, no_blanks, response_format={"type": "json_schema", "json_schema": wanted})
    assert_fits(answer.choices[0].message.content)


@pytest.mark.parametrize(
    ("kind", "value", "pattern"),
    [
        ("regex", "[a-f]{3}-[0-9]{2}", r"[a-f]{3}-[0-9]{2}"),
        ("choice", ["red", "green"], "red|green"),
        ("grammar", 'root ::= "yes" | "no" [a-c]', "yes|no[a-c]"),
        ("json", SCHEMA, None),
    ],
    ids=["regex", "choice", "grammar", "json"],
)
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_structured_output(
    client: OpenAI,
    no_blanks: dict[str, float],
    kind: str,
    value: object,
    pattern: str | None,
    temperature: float,
) -> None:
    wanted = {"structured_outputs": {kind: value}}
    answer = ask(client, no_blanks, temperature=temperature, seed=7, extra_body=wanted)
    text = answer.choices[0].message.content
    if pattern is None:
        assert_fits(text)
    else:
        assert re.fullmatch(pattern, text), text


@pytest.mark.parametrize(("choice", "names"), [("required", None), (NAMED, ["get_tide"])])
def test_tool_call(
    client: OpenAI, no_blanks: dict[str, float], choice: Any, names: list[str] | None
) -> None:
    answer = ask(client, no_blanks, tools=TOOLS, tool_choice=choice)
    calls = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason in ("tool_calls", "stop")
    assert calls
    for call in calls:
        assert (call.type, bool(call.id)) == ("function", True)
        assert call.function.name in (names or ["get_weather", "get_tide"])
        assert_fits(call.function.arguments)


def test_streamed_tool_call(client: OpenAI, no_blanks: dict[str, float]) -> None:
    name, arguments = "", ""
    for chunk in ask(client, no_blanks, tools=TOOLS, tool_choice=NAMED, stream=True):
        for call in chunk.choices[0].delta.tool_calls or ():
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    assert name == "get_tide"
    assert_fits(arguments)


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_text_when_no_tool_is_called(
    client: OpenAI, greedy_texts: dict[str, str], choice: Any
) -> None:
    question = "Where does the fox live?"
    answer = client.chat.completions.create(
        model=MODEL,
        messages=chat_message(question),
        tools=TOOLS,
        tool_choice=choice,
        temperature=0,
        max_tokens=40,
    )
    assert answer.choices[0].message.content == greedy_texts[question]
    assert not answer.choices[0].message.tool_calls
