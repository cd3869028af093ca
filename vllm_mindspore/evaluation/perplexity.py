# SPDX-License-Identifier: Apache-2.0
"""Perplexity of a text file: documents, windows of tokens, and the sum of their log-probabilities.

Documents are what stands between lines that contain only `<|endoftext|>`; a file without such lines
is one document. A document longer than the window is cut into windows that do not overlap. The
first token of a window has no context and is not scored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vllm_mindspore.evaluation.errors import EvaluationError

SEPARATOR = "<|endoftext|>"


@dataclass(frozen=True)
class Perplexity:
    """Perplexity and what it was computed from."""

    tokens: int
    mean_nll: float
    standard_error: float

    @property
    def value(self) -> float:
        """exp of the mean negative log-likelihood in nats per token."""
        return math.exp(self.mean_nll)


def read_documents(path: Path) -> list[str]:
    """The documents of a text file in UTF-8.

    Raises:
        EvaluationError: no such file, not UTF-8, or nothing but blanks and separators in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise EvaluationError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path} is not text in UTF-8: {error}") from error
    documents: list[list[str]] = [[]]
    for line in lines:
        if line.strip() == SEPARATOR:
            documents.append([])
        else:
            documents[-1].append(line)
    texts = ["\n".join(document).strip("\n") for document in documents]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise EvaluationError(f"{path} is empty: expected text")
    return texts


def windows(documents: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """Token ids cut into windows of at most `size`; a window of one token has nothing to score.

    Raises:
        EvaluationError: the size leaves nothing to score, or no document has two tokens.
    """
    if size < 2:
        raise EvaluationError(f"--window must be at least 2 tokens, got {size}")
    cut = [
        list(document[first : first + size])
        for document in documents
        for first in range(0, len(document), size)
    ]
    scored = [window for window in cut if len(window) > 1]
    if not scored:
        raise EvaluationError("no document has two tokens: there is nothing to score")
    return scored


def perplexity(logprobs: Sequence[Sequence[float]]) -> Perplexity:
    """From the log-probability (nats) of each scored token, by window.

    Raises:
        EvaluationError: fewer than two tokens, or a value that is not finite.
    """
    values = [-value for window in logprobs for value in window]
    if len(values) < 2:
        raise EvaluationError(f"perplexity needs at least two scored tokens, got {len(values)}")
    broken = sum(not math.isfinite(value) for value in values)
    if broken:
        raise EvaluationError(f"{broken} of {len(values)} token log-probabilities are not finite")
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return Perplexity(len(values), mean, math.sqrt(variance / len(values)))
