# SPDX-License-Identifier: Apache-2.0
"""Documents, windows and the arithmetic of perplexity."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_mindspore.evaluation.errors import EvaluationError
from vllm_mindspore.evaluation.perplexity import perplexity, read_documents, windows


def test_documents_stand_between_separator_lines(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("one\n\ntwo\n<|endoftext|>\n\n<|endoftext|>\nthree <|endoftext|> four\n")
    assert read_documents(path) == ["one\n\ntwo", "three <|endoftext|> four"]
    path.write_text("a plain text\n")
    assert read_documents(path) == ["a plain text"]


def test_unreadable_files_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    with pytest.raises(EvaluationError, match=r"cannot read .*text\.txt: No such file"):
        read_documents(path)
    for empty in ("", " \n", "\n<|endoftext|>\n<|endoftext|>"):
        path.write_text(empty)
        with pytest.raises(EvaluationError, match=r"text\.txt is empty"):
            read_documents(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(EvaluationError, match="is not text in UTF-8"):
        read_documents(path)
    with pytest.raises(EvaluationError, match="cannot read"):
        read_documents(tmp_path)


@given(st.lists(st.lists(st.integers(0, 99), max_size=40), max_size=5), st.integers(2, 20))
def test_windows_keep_all_tokens_but_lone_ones(documents: list[list[int]], size: int) -> None:
    expected = [
        chunk
        for document in documents
        for chunk in (document[i : i + size] for i in range(0, len(document), size))
        if len(chunk) != 1
    ]
    if not any(expected):
        with pytest.raises(EvaluationError, match="nothing to score"):
            windows(documents, size)
        return
    assert windows(documents, size) == expected


def test_a_window_of_one_token_is_refused() -> None:
    with pytest.raises(EvaluationError, match="--window must be at least 2 tokens, got 1"):
        windows([[1, 2, 3]], 1)


def test_uniform_guesses_have_the_perplexity_of_their_number() -> None:
    result = perplexity([[-math.log(50)] * 10, [-math.log(50)] * 3])
    assert result.tokens == 13
    assert result.value == pytest.approx(50)
    assert result.standard_error == pytest.approx(0, abs=1e-12)


def test_perplexity_against_numpy() -> None:
    values = np.random.default_rng(5).exponential(2.0, 1000)
    result = perplexity([(-values[:10]).tolist(), [], (-values[10:]).tolist()])
    assert result.mean_nll == pytest.approx(values.mean())
    assert result.standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(1000))
    assert result.value == pytest.approx(np.exp(values.mean()))


def test_nothing_or_nonsense_has_no_perplexity() -> None:
    with pytest.raises(EvaluationError, match="at least two scored tokens, got 1"):
        perplexity([[-1.0], []])
    with pytest.raises(EvaluationError, match="2 of 3 token log-probabilities are not finite"):
        perplexity([[-1.0, float("nan")], [float("-inf")]])
