# SPDX-License-Identifier: Apache-2.0
"""Exams in CEval's folder layout: reading, prompts, reading the answer letter, scoring.

Layout (https://cevalbenchmark.com): FOLDER/{dev,val,test}/SUBJECT_SPLIT.csv with the columns id,
question, A, B, C, D, answer; more columns (CEval's dev has an explanation) are ignored.
"""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vllm_mindspore.evaluation.errors import EvaluationError

LETTERS = "ABCD"
COLUMNS = ("id", "question", *LETTERS, "answer")
SPLITS = ("dev", "val", "test")
EXAMPLES_SPLIT = "dev"
# ASCII look-arounds, because \b sees no boundary between a letter and a Chinese character.
_LETTER = re.compile(r"(?<![A-Za-z])[ABCD](?![A-Za-z])")
_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """One row of an exam file."""

    subject: str
    id: str
    text: str
    options: tuple[str, str, str, str]
    answer: str

    def render(self) -> str:
        """Question and options, one line each."""
        options = (
            f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=True)
        )
        return "\n".join((f"Question: {self.text}", *options))


Exam = dict[str, list[Question]]


@dataclass(frozen=True)
class Score:
    """How many questions were asked, and how many were answered rightly."""

    questions: int
    correct: int

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0 to 1."""
        return self.correct / self.questions

    @property
    def standard_error(self) -> float:
        """Standard error of the accuracy: the binomial sqrt(p (1 - p) / n)."""
        return math.sqrt(self.accuracy * (1.0 - self.accuracy) / self.questions)


def read_exam(folder: Path, split: str) -> Exam:
    """All questions of one split by subject, subjects in alphabetic order.

    Raises:
        EvaluationError: no such folder or files, missing columns, no rows, incomplete rows,
            answers not in A to D.
    """
    if not folder.is_dir():
        raise EvaluationError(f"CEval folder {folder} does not exist or is not a folder")
    if not (folder / split).is_dir():
        found = ", ".join(sorted(entry.name for entry in folder.iterdir())) or "nothing"
        raise EvaluationError(f"CEval folder {folder} has no folder {split!r}; it contains {found}")
    suffix = f"_{split}.csv"
    files = sorted((folder / split).glob(f"*{suffix}"))
    if not files:
        raise EvaluationError(f"{folder / split} has no files named SUBJECT{suffix}")
    return {path.name.removesuffix(suffix): _read_file(path, suffix) for path in files}


def _read_file(path: Path, suffix: str) -> list[Question]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            header, rows = reader.fieldnames or [], list(reader)
        except (UnicodeDecodeError, csv.Error) as error:
            raise EvaluationError(f"{path} is not a CSV file in UTF-8: {error}") from error
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        expected, found = ", ".join(COLUMNS), ", ".join(header) or "none"
        hint = (
            " (this split comes without answers; use --split val)" if missing == ["answer"] else ""
        )
        raise EvaluationError(f"{path}: expected the columns {expected}; found {found}{hint}")
    if not rows:
        raise EvaluationError(f"{path} has a header but no questions")
    subject = path.name.removesuffix(suffix)
    return [_question(path, subject, line, row) for line, row in enumerate(rows, start=1)]


def _question(path: Path, subject: str, row_number: int, row: Mapping[str, str | None]) -> Question:
    cells = {column: (row[column] or "").strip() for column in COLUMNS}
    empty = [column for column in ("question", *LETTERS) if not cells[column]]
    if empty:
        raise EvaluationError(f"{path} row {row_number}: nothing in column {', '.join(empty)}")
    if cells["answer"] not in tuple(LETTERS):
        raise EvaluationError(
            f"{path} row {row_number}: expected an answer A, B, C or D, found {cells['answer']!r}"
        )
    options = (cells["A"], cells["B"], cells["C"], cells["D"])
    return Question(subject, cells["id"], cells["question"], options, cells["answer"])


def limit_exam(exam: Exam, limit: int) -> Exam:
    """The first questions of each subject, `limit` in all, as evenly as it goes.

    Raises:
        EvaluationError: the limit is not positive.
    """
    if limit < 1:
        raise EvaluationError(f"--limit must be at least 1, got {limit}")
    rounds = itertools.zip_longest(*exam.values())
    kept = [question for row in rounds for question in row if question is not None][:limit]
    limited: Exam = {subject: [] for subject in exam}
    for question in kept:
        limited[question.subject].append(question)
    return {subject: questions for subject, questions in limited.items() if questions}


def read_examples(folder: Path, subjects: Sequence[str], shots: int) -> Exam:
    """The first `shots` solved questions of each subject from the dev split.

    Raises:
        EvaluationError: a negative number, or a subject that has fewer questions in dev.
    """
    if shots < 0:
        raise EvaluationError(f"--shots must not be negative, got {shots}")
    if shots == 0:
        return {subject: [] for subject in subjects}
    dev = read_exam(folder, EXAMPLES_SPLIT)
    for subject in subjects:
        if len(dev.get(subject, [])) < shots:
            have = len(dev.get(subject, []))
            raise EvaluationError(
                f"--shots {shots}: {folder / EXAMPLES_SPLIT} has {have} questions of {subject}"
            )
    return {subject: dev[subject][:shots] for subject in subjects}


def completion_prompt(question: Question, examples: Sequence[Question]) -> str:
    """Solved examples, then the question up to the place where its letter is written."""
    solved = [f"{example.render()}\nAnswer: {example.answer}" for example in examples]
    return "\n\n".join((*solved, f"{question.render()}\nAnswer:"))


def conversation(
    question: Question, examples: Sequence[Question], system_prompt: str | None
) -> list[dict[str, str]]:
    """The same as chat messages: one turn per example, the question as last user message."""
    messages = [{"role": "system", "content": system_prompt}] if system_prompt else []
    for example in examples:
        messages.append({"role": "user", "content": example.render()})
        messages.append({"role": "assistant", "content": example.answer})
    return [*messages, {"role": "user", "content": question.render()}]


def parse_letter(text: str) -> str | None:
    """The first letter A to D that stands alone after any <think> part; None if there is none."""
    match = _LETTER.search(_THINKING.sub(" ", text))
    return match.group() if match else None


def score(questions: Sequence[Question], letters: Sequence[str | None]) -> dict[str, Score]:
    """Scores by subject; a question without a letter counts as wrong."""
    asked: dict[str, int] = defaultdict(int)
    right: dict[str, int] = defaultdict(int)
    for question, letter in zip(questions, letters, strict=True):
        asked[question.subject] += 1
        right[question.subject] += letter == question.answer
    return {subject: Score(asked[subject], right[subject]) for subject in sorted(asked)}


def total(scores: Mapping[str, Score]) -> Score:
    """All subjects together, every question with the same weight."""
    return Score(
        sum(part.questions for part in scores.values()),
        sum(part.correct for part in scores.values()),
    )
