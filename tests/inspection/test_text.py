# SPDX-License-Identifier: Apache-2.0
"""The words of all reports."""

from __future__ import annotations

from vllm_mindspore.inspection.text import amount, verdict


def test_amounts() -> None:
    assert [amount(count) for count in (0, 1_234_567, 1_000_000_000)] == [
        "0.000 MB",
        "1.235 MB",
        "1.000 GB",
    ]


def test_verdicts() -> None:
    assert list(verdict([])) == ["No problems found."]
    found = list(verdict([f"problem {index}" for index in range(23)]))
    assert found[:2] == ["It cannot be served, 23 problems:", "  problem 0"]
    assert found[-2:] == ["  problem 19", "  ... and 3 more (--json shows all)"]
