# SPDX-License-Identifier: Apache-2.0
"""Data sets as the users' script has them: rows with a column `input_ids`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mindspore.dataset import GeneratorDataset

from vllm_mindspore.evaluation import ceval
from vllm_mindspore.quantization.ptq import calibration_data

_COLUMN = "input_ids"
_COLUMNS = ("subjects", _COLUMN, "labels")


def ceval_dataset(
    folder: str | Path, tokenizer: Any, split: str = ceval.EXAMPLES_SPLIT
) -> GeneratorDataset:
    """The questions of an exam folder with columns subjects, input_ids and labels.

    `tokenizer`: of transformers, or a model folder. The text is the solved question; labels are the
    answer's letter. Raises ValueError for a folder that is no exam.
    """
    if isinstance(tokenizer, str | Path):
        tokenizer = calibration_data.load_tokenizer(Path(tokenizer))
    rows = [
        (
            # Arrays: what else there is, MindSpore converts in a way that numpy 2 refuses.
            np.array(subject),
            np.array(tokenizer.encode(calibration_data.solved(question)), np.int32),
            np.array(question.answer),
        )
        for subject, questions in ceval.read_exam(Path(folder), split).items()
        for question in questions
    ]
    return GeneratorDataset(rows, list(_COLUMNS), shuffle=False, python_multiprocessing=False)


def is_dataset(value: Any) -> bool:
    """Whether rows can be taken from it."""
    return hasattr(value, "create_dict_iterator") or (
        isinstance(value, Iterable) and not isinstance(value, str | bytes)
    )


def token_ids(dataset: Any) -> list[list[int]]:
    """The `input_ids` of all rows.

    Raises ValueError for rows without that column, or no rows.
    """
    found = []
    for row in _rows(dataset):
        if not hasattr(row, "keys") or _COLUMN not in row.keys():  # noqa: SIM118
            columns = sorted(row.keys()) if hasattr(row, "keys") else type(row).__name__
            raise ValueError(f"the dataset has no column {_COLUMN!r}; found {columns}")
        found.append([int(token) for token in np.asarray(row[_COLUMN]).reshape(-1)])
    if not found:
        raise ValueError("the dataset has no rows")
    return found


def _rows(dataset: Any) -> Iterator[Any]:
    if hasattr(dataset, "create_dict_iterator"):
        return iter(dataset.create_dict_iterator(num_epochs=1, output_numpy=True))
    return iter(dataset)
