# SPDX-License-Identifier: Apache-2.0
"""What ranks tell each other about a step, between real processes (engines: tests/e2e)."""

from __future__ import annotations

from typing import Any

import pytest

from ops.tests import ranks
from vllm_mindspore.device.kernel_library import kernel_library
from vllm_mindspore.device.rank_group import RankGroup
from vllm_mindspore.worker.ranks import share_tokens, told

DRAFTS: list[list[int]] = [[], [5, 6, 7], [], [9]]
TOKENS = [[11], [5, 6, 0], [], [151935]]


def test_rank_0_tells_the_tokens_of_each_row() -> None:
    def body(group: RankGroup) -> Any:
        return share_tokens(group, TOKENS if group.index == 0 else None, DRAFTS)

    assert ranks.run(3, body) == [TOKENS] * 3


def test_no_rows_are_no_tokens() -> None:
    assert ranks.run(2, lambda group: share_tokens(group, [], [])) == [[], []]


def test_a_failure_reaches_those_who_wait() -> None:
    def body(group: RankGroup) -> str:
        try:
            with told(group):
                if group.index == 0:
                    raise ValueError("no such word")
                share_tokens(group, None, DRAFTS)
        except (ValueError, RuntimeError) as error:
            return str(error)
        return ""

    first, second = ranks.run(2, body)
    assert first == "no such word"
    assert second == "broadcast: rank 0 has stopped: ValueError: no such word"


def test_one_rank_has_nobody_to_tell() -> None:
    group = RankGroup.form(kernel_library(), 0, 1, None)  # type: ignore[arg-type]
    assert share_tokens(group, TOKENS, DRAFTS) == TOKENS
    with pytest.raises(KeyError), told(group):
        raise KeyError
