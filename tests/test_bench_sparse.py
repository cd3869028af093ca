# SPDX-License-Identifier: Apache-2.0
"""The benchmarks of compressed weights run to the end and print what they are to reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import sparse

SMALLEST = ("--seconds", "0", "--gigabytes", "0.0001", "--rows", "64", "--inner", "256")


def _tables(printed: str) -> list[list[dict[str, str]]]:
    """Rows of every Markdown table, by column; of columns of one name, the last."""
    found: list[list[list[str]]] = [[]]
    for line in printed.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [
        [dict(zip(head, row, strict=True)) for row in rows]
        for head, _, *rows in filter(None, found)
    ]


def test_products_beside_their_goals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sparse.main([*SMALLEST, "--plot", str(tmp_path / "plot.svg")])
    decoding, batches, sets, codec = _tables(capsys.readouterr().out)
    goals = {row["zeros"]: row["goal"] for row in decoding if row["goal"]}
    assert goals == {"50%": "1.4", "70%": "2.0", "90%": "2.6"}
    assert all(float(row["plain read GB/s"]) > 0 for row in decoding)
    assert len(batches) == 14
    assert {row["goal"] for row in sets if row["instruction set"] == "avx2"} == {"0.7"}
    assert [row["goal"] for row in codec] == ["", "0.5", ""]
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")
