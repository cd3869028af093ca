# SPDX-License-Identifier: Apache-2.0
"""Samples of texts, exams and of the package's own text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vllm_mindspore.quantization.ptq import calibration_data
from vllm_mindspore.quantization.ptq.calibration_data import Amount

ROOT = Path(__file__).resolve().parents[3]
EXAM = ROOT / "examples" / "tiny_model" / "ceval"


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return calibration_data.load_tokenizer(tiny_model)


def test_documents_of_a_text(tokenizer: Any, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("Once upon a time.\n<|endoftext|>\nThe fox lives in the orchard. " * 3, "utf-8")
    found = calibration_data.read(file, tokenizer, Amount(samples=100, tokens=10))
    assert max(map(len, found.samples)) == 10
    assert found.samples[0] == tokenizer.encode("Once upon a time.")
    assert found.describe() == {
        "source": "text text.txt",
        "samples": len(found.samples),
        "tokens": sum(map(len, found.samples)),
    }


def test_samples_are_spread_over_the_data(tokenizer: Any, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    texts = [f"The fox number {index} sleeps." for index in range(50)]
    file.write_text("\n<|endoftext|>\n".join(texts), "utf-8")
    found = calibration_data.read(file, tokenizer, Amount(samples=3))
    assert found.samples == [tokenizer.encode(texts[index]) for index in (0, 24, 49)]


def test_questions_of_an_exam_with_their_answers(tokenizer: Any) -> None:
    found = calibration_data.read(EXAM, tokenizer, Amount(samples=10_000))
    texts = [tokenizer.decode(sample) for sample in found.samples]
    plain = [text for text in texts if "\nAnswer: " in text]
    chats = [text for text in texts if "<|im_start|>assistant" in text]
    assert plain[0].startswith("Question: ")
    assert plain[0].rpartition(" ")[2] in "ABCD"
    assert len(plain) == len(chats) == len(texts) / 2


def test_the_bundled_text_needs_no_option(tokenizer: Any) -> None:
    found = calibration_data.read(None, tokenizer, Amount())
    assert len(found.samples) == calibration_data.SAMPLES
    assert found.source == "bundled text"
    assert any("é" in tokenizer.decode(sample) for sample in found.samples)


def test_what_cannot_be_read_is_named(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*none.txt: No such file"):
        calibration_data.read(tmp_path / "none.txt", tokenizer, Amount())
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"empty.txt is empty"):
        calibration_data.read(tmp_path / "empty.txt", tokenizer, Amount())
    with pytest.raises(ValueError, match="has no folder 'dev'"):
        calibration_data.read(tmp_path, tokenizer, Amount())
    with pytest.raises(ValueError, match="has no tokenizer that transformers reads"):
        calibration_data.load_tokenizer(tmp_path)


@pytest.mark.parametrize("amount", [{"samples": 0}, {"tokens": 1}])
def test_amounts_that_leave_nothing(amount: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected at least 1 of 2"):
        Amount(**amount)
