# SPDX-License-Identifier: Apache-2.0
"""The comparison with another program reads its milliseconds, or says what it printed instead."""

from __future__ import annotations

import pytest

from benchmarks import against


def test_the_pattern_finds_the_time() -> None:
    printed = "decode B=1: median 61.5 ms"
    assert against.milliseconds(["echo", printed], r"B=1: median ([0-9.]+)") == 61.5


def test_our_own_row_is_found() -> None:
    row = "| decode step, batch 8 | 72.5 | 70.1 | ms | 110.3 tokens/s |"
    assert against.milliseconds(["echo", row], against.OUR_ROW) == 72.5


def test_a_program_without_the_time_shows_its_output() -> None:
    with pytest.raises(SystemExit, match=r"no .batch.(.|\n)*cannot open"):
        against.milliseconds(["sh", "-c", "echo cannot open >&2"], "batch")
