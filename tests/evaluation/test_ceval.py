# SPDX-License-Identifier: Apache-2.0
"""Reading exams, prompts, answer letters and scores."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_mindspore.evaluation import ceval
from vllm_mindspore.evaluation.errors import EvaluationError

TINY_CEVAL = Path(__file__).parents[2] / "examples" / "tiny_model" / "ceval"
HEADER = "id,question,A,B,C,D,answer\n"
BIRDS = "0,Which bird swims?,duck,owl,crow,hen,A\n1,Which bird hunts?,duck,owl,crow,hen,B\n"


def write(folder: Path, name: str, text: str, split: str = "val") -> Path:
    (folder / split).mkdir(parents=True, exist_ok=True)
    (folder / split / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("split", ceval.SPLITS)
def test_reads_every_row_of_the_tiny_models_exam(split: str) -> None:
    files = sorted((TINY_CEVAL / split).iterdir())
    rows = [row for file in files for row in list(csv.reader(file.open(newline="")))[1:]]
    exam = ceval.read_exam(TINY_CEVAL, split)
    read = [
        [question.id, question.text, *question.options, question.answer]
        for part in exam.values()
        for question in part
    ]
    assert read == rows
    assert len(exam) == len(files)


def test_subjects_come_from_file_names(tmp_path: Path) -> None:
    write(tmp_path, "big_birds_val.csv", HEADER + BIRDS)
    write(tmp_path, "notes.txt", "not an exam")
    exam = ceval.read_exam(tmp_path, "val")
    assert list(exam) == ["big_birds"]
    assert {question.subject for question in exam["big_birds"]} == {"big_birds"}


def test_a_byte_order_mark_and_more_columns_do_no_harm(tmp_path: Path) -> None:
    text = "\ufeffid,question,A,B,C,D,answer,explanation\n0,Q?,a,b,c,d,C,because\n"
    question = ceval.read_exam(write(tmp_path, "x_val.csv", text), "val")["x"][0]
    assert (question.id, question.text, question.answer) == ("0", "Q?", "C")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "has a header but no questions"),
        ("", "expected the columns id, question, A, B, C, D, answer; found none"),
        ("id,question,A,B,C,answer\n0,Q,a,b,c,A\n", "found id, question, A, B, C, answer"),
        ("id,question,A,B,C,D\n0,Q,a,b,c,d\n", "comes without answers; use --split val"),
        (HEADER + "0,Q,a,b,c,d,E\n", "row 1: expected an answer A, B, C or D, found 'E'"),
        (HEADER + "0,Q,a,b,c,d,AB\n", "row 1: expected an answer A, B, C or D, found 'AB'"),
        (HEADER + "0,Q,a,b,c,d,\n", "found ''"),
        (HEADER + BIRDS + "2,Q,a,b\n", "row 3: nothing in column C, D"),
        (HEADER + "0,,a,b,c,d,A\n", "row 1: nothing in column question"),
    ],
)
def test_bad_files_are_named_with_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, "x_val.csv", text)
    with pytest.raises(EvaluationError) as raised:
        ceval.read_exam(tmp_path, "val")
    assert message in str(raised.value)
    assert "x_val.csv" in str(raised.value)


def test_a_binary_file_is_not_an_exam(tmp_path: Path) -> None:
    write(tmp_path, "x_val.csv", "")
    (tmp_path / "val" / "x_val.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(EvaluationError, match="is not a CSV file in UTF-8"):
        ceval.read_exam(tmp_path, "val")


def test_missing_folders_and_files(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="does not exist"):
        ceval.read_exam(tmp_path / "nowhere", "val")
    with pytest.raises(EvaluationError, match="no folder 'val'; it contains nothing"):
        ceval.read_exam(tmp_path, "val")
    write(tmp_path, "x_dev.csv", HEADER + BIRDS)
    with pytest.raises(EvaluationError, match=r"no files named SUBJECT_val\.csv"):
        ceval.read_exam(tmp_path, "val")
    with pytest.raises(EvaluationError, match="no folder 'test'; it contains val"):
        ceval.read_exam(tmp_path, "test")


def test_limit_takes_subjects_evenly() -> None:
    exam = ceval.read_exam(TINY_CEVAL, "val")
    subjects = len(exam)
    limited = ceval.limit_exam(exam, 2 * subjects + 3)
    assert sorted((len(part) for part in limited.values()), reverse=True)[:4] == [3, 3, 3, 2]
    assert all(part == exam[subject][: len(part)] for subject, part in limited.items())
    assert ceval.limit_exam(exam, 2) == {name: exam[name][:1] for name in list(exam)[:2]}
    assert ceval.limit_exam(exam, 10**6) == exam
    with pytest.raises(EvaluationError, match="--limit must be at least 1, got 0"):
        ceval.limit_exam(exam, 0)


def test_examples_come_from_dev_and_must_be_enough(tmp_path: Path) -> None:
    write(tmp_path, "birds_dev.csv", HEADER + BIRDS, "dev")
    examples = ceval.read_examples(tmp_path, ["birds"], 1)
    assert [question.answer for question in examples["birds"]] == ["A"]
    with pytest.raises(EvaluationError, match=r"--shots 3: .*dev has 2 questions of birds"):
        ceval.read_examples(tmp_path, ["birds"], 3)
    with pytest.raises(EvaluationError, match="has 0 questions of fish"):
        ceval.read_examples(tmp_path, ["birds", "fish"], 1)
    with pytest.raises(EvaluationError, match="--shots must not be negative"):
        ceval.read_examples(tmp_path, ["birds"], -1)
    assert ceval.read_examples(tmp_path / "nowhere", ["fish"], 0) == {"fish": []}


@pytest.fixture
def birds(tmp_path: Path) -> list[ceval.Question]:
    return ceval.read_exam(write(tmp_path, "birds_val.csv", HEADER + BIRDS), "val")["birds"]


def test_completion_prompt_is_the_text_of_an_exam_paper(birds: list[ceval.Question]) -> None:
    assert ceval.completion_prompt(birds[1], birds[:1]) == (
        "Question: Which bird swims?\nA. duck\nB. owl\nC. crow\nD. hen\nAnswer: A\n\n"
        "Question: Which bird hunts?\nA. duck\nB. owl\nC. crow\nD. hen\nAnswer:"
    )


def test_conversation_has_one_turn_per_example(birds: list[ceval.Question]) -> None:
    messages = ceval.conversation(birds[1], birds[:1], "Be brief.")
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[2]["content"] == "A"
    assert messages[3]["content"] == (
        "Question: Which bird hunts?\nA. duck\nB. owl\nC. crow\nD. hen"
    )
    assert ceval.conversation(birds[1], [], None) == [messages[3]]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (" B", "B"),
        ("C. crow", "C"),
        ("(D)", "D"),
        ("The answer is C.", "C"),
        ("\u7b54\u6848\u662fB\u3002", "B"),
        ("<think>A or B? rather B</think>\n\nC", "C"),
        ("<think>A or B? I am not", None),
        ("Because", None),
        ("ABCD", None),
        ("b", None),
        ("", None),
    ],
)
def test_parse_letter(text: str, letter: str | None) -> None:
    assert ceval.parse_letter(text) == letter


@given(st.text(), st.sampled_from(ceval.LETTERS))
def test_parse_letter_finds_the_first_lone_letter(after: str, letter: str) -> None:
    assert ceval.parse_letter(f"{letter} {after.replace('<think>', '')}") == letter


def test_score_against_numpy(birds: list[ceval.Question]) -> None:
    questions = birds * 50
    letters = [None if i % 7 == 0 else "A" for i in range(len(questions))]
    right = np.array([a == q.answer for a, q in zip(letters, questions, strict=True)])
    score = ceval.total(ceval.score(questions, letters))
    assert (score.questions, score.correct) == (100, int(right.sum()))
    assert score.accuracy == pytest.approx(right.mean())
    assert score.standard_error == pytest.approx(right.std() / np.sqrt(len(right)))


def test_total_weighs_every_question_the_same() -> None:
    parts = {"small": ceval.Score(10, 10), "large": ceval.Score(90, 0)}
    assert ceval.total(parts) == ceval.Score(100, 10)
