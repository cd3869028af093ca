# SPDX-License-Identifier: Apache-2.0
"""The benchmarks of compressed weights run to the end and print what they are to reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import sparse, sparse_engine
from benchmarks.alternately import MEASUREMENTS
from vllm_mindspore.cli import main

SMALLEST = ("--seconds", "0", "--gigabytes", "0.0001", "--rows", "64", "--inner", "256")
SMALL = sparse_engine.QWEN3_0_6B | {
    **{"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1},
    **{"vocab_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64},
}


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
    assert [row["goal"] for row in codec] == ["", "", "0.5", ""]
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")


def test_engines_beside_their_goals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for engines: each step takes as long as its weights have bytes."""
    monkeypatch.setitem(sparse_engine.SHAPES, "0.6B", SMALL)
    for start_one in ("_engine", "start_engine"):
        monkeypatch.setattr(sparse_engine, start_one, lambda folder: folder)
    sides = sparse_engine.start(tmp_path, "0.6B", [50, 70])
    for side in sides:
        assert side.name == "bf16" or main.main(["inspect", str(side.llm)]) == 0
        side.times = {name: [float(side.num_bytes)] for name in MEASUREMENTS}
    sizes = [side.num_bytes for side in sides]
    assert sizes[3] == 2 * sizes[0] > sizes[0] > sizes[1] > sizes[2]
    printed = sparse_engine.text("0.6B", sides, [50, 70])
    goals = [row["goal"] for row in _tables(printed)[0]]
    assert goals == ["", "1.15", "1.35", "", "", "1.0", "1.0", "", "", "0.9", "0.9", ""]
    assert printed.endswith("decode at batch 1: 2.00 times as fast, goal 1.55.")
