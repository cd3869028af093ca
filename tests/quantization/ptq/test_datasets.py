# SPDX-License-Identifier: Apache-2.0
"""Data sets with a column input_ids, of MindSpore and others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mindspore.dataset import GeneratorDataset

from vllm_mindspore.quantization.ptq import ceval_dataset, datasets

ROOT = Path(__file__).resolve().parents[3]
EXAM = ROOT / "examples" / "tiny_model" / "ceval"


def test_the_scripts_dataset(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    found = ceval_dataset(EXAM, tokenizer)
    assert found.get_col_names() == ["subjects", "input_ids", "labels"]
    rows = list(found.create_dict_iterator(num_epochs=1, output_numpy=True))
    assert str(rows[0]["subjects"]) == "animal_color"
    text = tokenizer.decode(rows[0]["input_ids"])
    assert text.endswith(f"Answer: {rows[0]['labels']}")
    assert datasets.token_ids(found) == [row["input_ids"].tolist() for row in rows]
    assert datasets.token_ids(ceval_dataset(str(EXAM), tiny_model)) == datasets.token_ids(found)


ROWS = [[1, 2, 3], [4, 5]]


@pytest.mark.parametrize(
    "dataset",
    [
        [{"input_ids": row, "labels": 0} for row in ROWS],
        [{"input_ids": np.array([row])} for row in ROWS],
        GeneratorDataset(
            [(np.array(row, np.int32),) for row in ROWS], ["input_ids"], shuffle=False
        ),
    ],
)
def test_rows_of_other_datasets(dataset: Any) -> None:
    assert datasets.is_dataset(dataset)
    assert datasets.token_ids(dataset) == ROWS


def test_what_is_none() -> None:
    assert not datasets.is_dataset("ceval")
    assert not datasets.is_dataset(object())
    with pytest.raises(ValueError, match=r"no column 'input_ids'; found \['ids'\]"):
        datasets.token_ids([{"ids": [1]}])
    with pytest.raises(ValueError, match="no column 'input_ids'; found list"):
        datasets.token_ids([[1, 2]])
    with pytest.raises(ValueError, match="no rows"):
        datasets.token_ids([])
