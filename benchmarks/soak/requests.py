# SPDX-License-Identifier: Apache-2.0
"""The requests of the soak: what is sent, and what each kind must get back."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MODEL = "soak"
MAX_MODEL_LEN = 1024
COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"

# Beginnings that many prompts share; whole blocks of them are found in the prefix cache.
_SENTENCES = (
    "The fox lives in the orchard. ",
    "Mia works as a fisher in Oakham and owns a blanket. ",
    "The river Isen flows through Alder, and its flag is blue. ",
    "The bear was tired because it had no mushrooms. ",
)
_OPENINGS = tuple(sentence * 12 for sentence in _SENTENCES)
_CONTINUATIONS = (
    *("Once upon a time", "Tom was a painter", "Where does the bear live?", "The hen was waiting"),
    *("In the morning", "Ask me a story.", "Nobody knew that", "The river Dove flows through"),
)
_PATTERN = "[a-f]{8}-[0-9]{4}"


@dataclass(frozen=True)
class Question:
    """A greedy request with one right answer: what the server says when it is alone."""

    prompt: str
    max_tokens: int

    def body(self, stream: bool) -> dict[str, Any]:
        """The request."""
        return _completion(
            self.prompt, self.max_tokens, temperature=0, ignore_eos=True, stream=stream
        )


def questions(count: int) -> list[Question]:
    """Prompts of 4 to some 200 tokens, most with a shared beginning; answers of 24 to 96 tokens."""
    found = []
    for number in range(count):
        opening = (*_OPENINGS, "")[number % (len(_OPENINGS) + 1)]
        continuation = _CONTINUATIONS[number % len(_CONTINUATIONS)]
        found.append(Question(opening + continuation, 24 + 24 * (number % 4)))
    return found


def sampled(choose: random.Random) -> dict[str, Any]:
    """A request with random sampling parameters; any text is right."""
    options: dict[str, Any] = {
        **{"temperature": choose.uniform(0.2, 2.0), "top_p": choose.uniform(0.3, 1.0)},
        **{"top_k": choose.choice((0, 1, 5, 50)), "min_p": choose.choice((0, 0.05))},
        **{"presence_penalty": choose.choice((0, 1.5)), "n": choose.choice((1, 1, 1, 3))},
        **{"repetition_penalty": choose.choice((1, 1.3)), "logprobs": choose.choice((None, 3))},
        **{"stop": choose.choice((None, ["Oakham", "."]))},
        **{"logit_bias": choose.choice((None, {"201": -100.0}))},
    }
    if choose.random() < 0.5:
        options["seed"] = choose.randrange(1 << 31)
    prompt = choose.choice(_OPENINGS) + choose.choice(_CONTINUATIONS)
    return _completion(prompt, choose.randrange(8, 80), stream=True, **options)


def constrained(choose: random.Random) -> tuple[dict[str, Any], str]:
    """A request for text of a form, and the form as a regular expression."""
    wanted = {"structured_outputs": {"regex": _PATTERN}}
    body = _completion(choose.choice(_CONTINUATIONS), 40, temperature=1.0, stream=True, **wanted)
    return body, _PATTERN


def endless(choose: random.Random) -> dict[str, Any]:
    """A long answer, to be left before its end."""
    prompt = choose.choice(_OPENINGS) + choose.choice(_CONTINUATIONS)
    return _completion(prompt, 400, stream=True, temperature=0.8, ignore_eos=True)


def oversize(choose: random.Random) -> tuple[str, bytes]:
    """A prompt that no request of this server may have: path and body."""
    tokens = MAX_MODEL_LEN + choose.choice((1, 100, 100_000))
    if choose.random() < 0.5:
        return COMPLETIONS, _encoded(_completion([7] * tokens, 4))
    message = {"role": "user", "content": "fox " * tokens}
    return CHAT, _encoded({"model": MODEL, "messages": [message], "max_tokens": 4})


_MALFORMED: tuple[Callable[[random.Random], bytes], ...] = (
    lambda choose: b"{" * choose.randrange(1, 2000),
    lambda choose: choose.randbytes(choose.randrange(1, 2000)),
    lambda choose: b"",
    lambda choose: b"[]",
    lambda choose: _encoded(_completion("a", -choose.randrange(1, 100))),
    lambda choose: _encoded(_completion("a", 4, temperature=-1)),
    lambda choose: _encoded(_completion("a", 4, top_p=7)),
    lambda choose: _encoded(_completion([choose.randrange(1 << 20, 1 << 40)], 4)),
    lambda choose: _encoded(_completion("a", 4) | {"model": "absent"}),
    lambda choose: _encoded(_completion("a", 4, structured_outputs={"regex": "["})),
    lambda choose: _encoded(_completion("a", 4, logit_bias={"99999": 1})),
)


def malformed(choose: random.Random) -> tuple[str, bytes]:
    """A request that is wrong in itself: path and body."""
    return COMPLETIONS, choose.choice(_MALFORMED)(choose)


def _completion(prompt: str | list[int], max_tokens: int, **options: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": prompt, "max_tokens": max_tokens, **options}


def _encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()
