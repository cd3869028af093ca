# SPDX-License-Identifier: Apache-2.0
"""Measures a model with Hugging Face transformers on torch: exam, perplexity, what it says.

It does not use the engine, so that the engine can be compared with it.

    python measure.py MODEL_FOLDER CORPUS_FOLDER OUT.json
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

LETTERS = "ABCD"
SEPARATOR = "\n<|endoftext|>\n"
STORY_PROMPT = "Once upon a time"
STORY_TOKENS = 160
CHAT_QUESTIONS = (
    "Where does the fox live?",
    "What does Mia do for work?",
    "Tell me a story about Tom and the bear.",
)
BATCH = 16

Row = dict[str, str]


def read_split(ceval: Path, split: str) -> list[Row]:
    """All rows of one split, with the exam subject added under "subject"."""
    files = sorted((ceval / split).glob(f"*_{split}.csv"))
    if not files:
        raise FileNotFoundError(f"no *_{split}.csv in {ceval / split}")
    rows: list[Row] = []
    for path in files:
        subject = path.name.removesuffix(f"_{split}.csv")
        with path.open(newline="", encoding="utf-8") as file:
            rows += [{**row, "subject": subject} for row in csv.DictReader(file)]
    return rows


def prompt_of(row: Row) -> str:
    """The question without examples, up to where the letter is written."""
    options = "\n".join(f"{letter}. {row[letter]}" for letter in LETTERS)
    return f"Question: {row['question']}\n{options}\nAnswer:"


@torch.no_grad()
def answer_letters(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[Row]
) -> list[str]:
    """The greedy next token after each prompt, without blanks; it may be no letter at all."""
    model.eval()
    letters: list[str] = []
    for first in range(0, len(rows), BATCH):
        prompts = [prompt_of(row) for row in rows[first : first + BATCH]]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="right")
        lengths = inputs["attention_mask"].sum(1)
        logits = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        ).logits
        best = logits[torch.arange(len(prompts)), lengths - 1].argmax(-1)
        letters += [tokenizer.decode(token).strip() for token in best]
    return letters


def exam_accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[Row]
) -> float:
    """Share of rows whose answer letter is the greedy next token."""
    letters = answer_letters(model, tokenizer, rows)
    return sum(a == row["answer"] for a, row in zip(letters, rows, strict=True)) / len(rows)


@torch.no_grad()
def perplexity(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, documents: list[str]
) -> float:
    """Perplexity per token over documents, each scored alone from its second token on."""
    nll, count = 0.0, 0
    for document in documents:
        ids = torch.tensor([tokenizer.encode(document, add_special_tokens=False)])
        logits = model(input_ids=ids).logits[0, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
        nll, count = nll + loss.item(), count + ids.shape[1] - 1
    return math.exp(nll / count)


def greedy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """The greedy continuation of a prompt, up to an end token."""
    inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    output = model.generate(**inputs, do_sample=False, max_new_tokens=STORY_TOKENS)
    return str(
        tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    )


def chat(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The greedy answer to one user message."""
    messages = [{"role": "user", "content": text}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return greedy(model, tokenizer, str(prompt))


def measure(folder: Path, corpus: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Exam accuracy in total and by subject, and perplexity, at one precision."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    rows = read_split(corpus / "ceval", "val")
    subjects = sorted({row["subject"] for row in rows})
    documents = (corpus / "heldout.txt").read_text(encoding="utf-8").split(SEPARATOR)
    return {
        "val_accuracy": exam_accuracy(model, tokenizer, rows),
        "val_accuracy_by_subject": {
            subject: exam_accuracy(model, tokenizer, [r for r in rows if r["subject"] == subject])
            for subject in subjects
        },
        "heldout_perplexity": perplexity(model, tokenizer, documents),
    }


def samples(folder: Path) -> dict[str, str]:
    """What the model says, greedily; in fp32, whose tokens hardly depend on the machine."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return {
        STORY_PROMPT: greedy(model, tokenizer, STORY_PROMPT),
        **{question: chat(model, tokenizer, question) for question in CHAT_QUESTIONS},
    }


def card(folder: Path, corpus: Path) -> dict[str, Any]:
    """Everything that is known about the model, as it goes into model_card.json."""
    weights = (folder / "model.safetensors").read_bytes()
    model = AutoModelForCausalLM.from_pretrained(folder)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "val_questions": len(read_split(corpus / "ceval", "val")),
        "bfloat16": measure(folder, corpus, torch.bfloat16),
        "float32": measure(folder, corpus, torch.float32),
        "greedy_float32": samples(folder),
        "measured_with": f"torch {torch.__version__}, transformers {transformers.__version__}",
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder of the trained model")
    parser.add_argument("corpus", type=Path, help="folder with ceval/ and heldout.txt")
    parser.add_argument("out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    torch.manual_seed(0)
    text = json.dumps(card(args.model, args.corpus), indent=2)
    args.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
