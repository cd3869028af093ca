# SPDX-License-Identifier: Apache-2.0
"""Drafts are what followed the earliest occurrence of the longest matching suffix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_mindspore.worker.speculation import NgramProposer


def search(tokens: list[int], shortest: int, longest: int, count: int) -> list[int]:
    """The same by comparing lists."""
    for size in range(longest, shortest - 1, -1):
        for start in range(len(tokens) - size):
            if tokens[start : start + size] == tokens[-size:]:
                return tokens[start + size : start + size + count]
    return []


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([1, 2, 3, 4, 1, 2], [3, 4, 1]),
        ([1, 2, 3, 9, 2, 3, 8, 2, 3], [9, 2, 3]),  # the earliest
        ([2, 7, 1, 2, 8, 1, 2], [8, 1, 2]),  # two tokens before one
        ([5, 5], [5]),  # what follows may be short
        ([1, 2, 3], []),
        ([1], []),
    ],
)
def test_examples(tokens: list[int], expected: list[int]) -> None:
    assert NgramProposer(1, 2).propose(np.array(tokens), 3) == expected


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(1, 5),
)
def test_like_a_search_of_lists(tokens: list[int], shortest: int, more: int, count: int) -> None:
    proposer = NgramProposer(shortest, shortest + more)
    expected = search(tokens, shortest, shortest + more, count)
    assert proposer.propose(np.array(tokens, dtype=np.int32), count) == expected


def test_no_drafts_are_asked_for() -> None:
    assert NgramProposer(1, 2).propose(np.array([1, 1, 1]), 0) == []
