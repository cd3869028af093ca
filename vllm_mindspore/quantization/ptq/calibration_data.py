# SPDX-License-Identifier: Apache-2.0
"""Calibration data: documents of a text file, questions of an exam, or the text of the package, as
token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vllm_mindspore.evaluation import ceval
from vllm_mindspore.evaluation.perplexity import read_documents

BUNDLED = Path(__file__).with_name("calibration.txt")
SAMPLES, TOKENS = 64, 512
"""How many samples are taken by default, and of how many tokens at most."""


@dataclass(frozen=True)
class Amount:
    """How much of the data is used: `samples` spread over it, each cut after `tokens`."""

    samples: int = SAMPLES
    tokens: int = TOKENS

    def __post_init__(self) -> None:
        """Raises ValueError for a number that leaves nothing."""
        if self.samples < 1 or self.tokens < 2:
            raise ValueError(
                f"{self.samples} calibration samples of {self.tokens} tokens: expected at least 1 "
                "of 2"
            )


@dataclass(frozen=True)
class Calibration:
    """Samples of token ids, and where they are from."""

    source: str
    samples: list[list[int]]

    def describe(self) -> dict[str, Any]:
        """For the report."""
        tokens = sum(map(len, self.samples))
        return {"source": self.source, "samples": len(self.samples), "tokens": tokens}


def read(place: Path | None, tokenizer: Any, amount: Amount) -> Calibration:
    """The samples of a text file, of an exam folder, or of the package's own text for None.

    Raises ValueError for a place that is missing, empty or neither.
    """
    if place is None:
        return Calibration("bundled text", _take(_bundled(tokenizer), amount))
    if place.is_dir():
        return Calibration(f"exam {place.name}", _take(exam(place, tokenizer), amount))
    documents = [tokenizer.encode(text) for text in read_documents(place)]
    return Calibration(f"text {place.name}", _take(_windows(documents, amount.tokens), amount))


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder. Raises ValueError if there is none that can be read."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{folder} has no tokenizer that transformers reads, and calibration needs one: "
            f"{error!s:.300}"
        ) from error


def exam(folder: Path, tokenizer: Any, split: str = ceval.EXAMPLES_SPLIT) -> list[list[int]]:
    """The solved questions of an exam folder, as text and, where the tokenizer has a chat
    template, as chats.

    Raises ValueError for a folder that is no exam.
    """
    questions = [q for part in ceval.read_exam(folder, split).values() for q in part]
    found = []
    for question in questions:
        found.append(tokenizer.encode(solved(question)))
        if tokenizer.chat_template:
            found.append(_chat(tokenizer, question.render(), question.answer))
    return found


def solved(question: ceval.Question) -> str:
    """A question with its answer, as text."""
    return f"{ceval.completion_prompt(question, [])} {question.answer}"


def _bundled(tokenizer: Any) -> list[list[int]]:
    """Documents whose first line asks for the rest: as text and, with a chat template, as chats."""
    found = []
    for document in read_documents(BUNDLED):
        request, _, answer = document.partition("\n")
        found.append(tokenizer.encode(document))
        if tokenizer.chat_template:
            found.append(_chat(tokenizer, request, answer))
    return found


def _chat(tokenizer: Any, request: str, answer: str) -> list[int]:
    messages = [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def _windows(documents: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    return [
        list(document[first : first + tokens])
        for document in documents
        for first in range(0, len(document), tokens)
    ]


def _take(samples: Sequence[Sequence[int]], amount: Amount) -> list[list[int]]:
    """Samples with at least two tokens, spread evenly over all."""
    usable = [list(sample[: amount.tokens]) for sample in samples if len(sample) > 1]
    if not usable:
        raise ValueError("no calibration sample has two tokens")
    count = min(amount.samples, len(usable))
    chosen = np.linspace(0, len(usable) - 1, count).round().astype(int)
    return [usable[index] for index in chosen]
