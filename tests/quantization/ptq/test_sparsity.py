# SPDX-License-Identifier: Apache-2.0
"""Shares and patterns, and those that mean nothing."""

from __future__ import annotations

import pytest

from vllm_mindspore.quantization.ptq import sparsity
from vllm_mindspore.quantization.ptq.sparsity import (
    RECOMMENDED,
    Method,
    Pattern,
    Sparsity,
    parse_pattern,
)


def test_what_is_taken_where_nothing_is_said() -> None:
    found = sparsity.sparsity(None, Method.WANDA, None)
    assert found == Sparsity(RECOMMENDED, Method.WANDA, None)
    assert RECOMMENDED >= 0.3
    assert sparsity.sparsity(None, Method.WANDA, Pattern(1, 4)).share == 0.75
    assert sparsity.sparsity(0.5, Method.WANDA, Pattern(2, 4)).share == 0.5


def test_patterns_are_read() -> None:
    assert parse_pattern("2:4") == Pattern(2, 4)
    assert str(parse_pattern("3:8")) == "3:8"
    for text in ("", "2", "2:", ":4", "2/4", "2:4:8", "-1:4", "2:4 "):
        with pytest.raises(ValueError, match="expected N:M, such as 2:4"):
            parse_pattern(text)
    for text in ("0:4", "4:4", "5:4", "2:65"):
        with pytest.raises(ValueError, match="0 < N < M <= 64"):
            parse_pattern(text)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 50.0, float("nan")])
def test_shares_that_leave_all_or_nothing(share: float) -> None:
    with pytest.raises(ValueError, match="expected a share between 0 and 1"):
        Sparsity(share)


def test_a_share_that_is_not_the_patterns() -> None:
    with pytest.raises(ValueError, match=r"makes 0\.5 of the weights zero: leave one out"):
        Sparsity(0.6, pattern=Pattern(2, 4))


def test_layers_that_do_not_fit() -> None:
    Sparsity(0.5, pattern=Pattern(2, 4)).check("q_proj", 256)
    with pytest.raises(ValueError, match="q_proj has 258 input channels, no multiple of the 4"):
        Sparsity(0.5, pattern=Pattern(2, 4)).check("q_proj", 258)
    with pytest.raises(ValueError, match=r"q_proj has 64 .* would make 0 of them zero"):
        Sparsity(0.001).check("q_proj", 64)
    with pytest.raises(ValueError, match="would make 64 of them zero"):
        Sparsity(0.999).check("q_proj", 64)
