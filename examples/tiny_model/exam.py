# SPDX-License-Identifier: Apache-2.0
"""Four-choice questions: drawn, held out from training, and written in CEval's folder layout."""

from __future__ import annotations

import csv
import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from world import ATTRIBUTES, ENTITIES, Fact, World

LETTERS = "ABCD"
SPLIT_SIZES = {"dev": 5, "val": 100, "test": 100}
RESERVED_ONE_IN = 8  # this share of all option sets is kept for the exams and never trained on
EXAM_SEED = 1
QUESTION_BLOCK = re.compile(r"Question: (.*)\nA\. (.*)\nB\. (.*)\nC\. (.*)\nD\. ([^<\n]*)")


@dataclass(frozen=True)
class Item:
    """One question with four options, one of them right."""

    fact: Fact
    question: str
    options: tuple[str, str, str, str]

    @property
    def answer(self) -> str:
        """The letter of the right option."""
        return LETTERS[self.options.index(self.fact.value)]

    @property
    def key(self) -> str:
        """What is asked and among which options, whatever their order and the wording."""
        return "|".join((self.fact.attribute.subject, self.fact.entity, *sorted(self.options)))

    def render(self) -> str:
        """The question without its answer, as training texts and exam prompts show it."""
        lines = [
            f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=True)
        ]
        return "\n".join([f"Question: {self.question}", *lines])


def is_reserved(item: Item) -> bool:
    """Whether this question is for exams only; a checksum decides, so later exams are clean too."""
    return zlib.crc32(item.key.encode()) % RESERVED_ONE_IN == 0


def draw(rng: random.Random, fact: Fact, *, reserved: bool, answer: str | None = None) -> Item:
    """A question about `fact` from the reserved or the free part, right option at `answer`."""
    others = [value for value in fact.attribute.values if value not in (fact.value, fact.entity)]
    while True:
        wrong = rng.sample(others, 3)
        place = LETTERS.index(answer) if answer else rng.randrange(4)
        a, b, c, d = (*wrong[:place], fact.value, *wrong[place:])
        item = Item(fact, fact.question(rng), (a, b, c, d))
        if is_reserved(item) == reserved:
            return item


def training_item(rng: random.Random, world: World, subject: str | None = None) -> Item:
    """A question that training may see; of one exam subject if given."""
    fact = world.any_fact(rng) if subject is None else world.fact_of(subject, rng)
    return draw(rng, fact, reserved=False)


def exams(world: World) -> Iterator[tuple[str, str, list[Item]]]:
    """(split, subject, items) of every file; answers are balanced, no question occurs twice."""
    seen: set[str] = set()
    for split, size in SPLIT_SIZES.items():
        for index, attribute in enumerate(ATTRIBUTES):
            rng = random.Random(f"{EXAM_SEED} {split} {attribute.subject}")
            letters = [LETTERS[(index + i) % 4] for i in range(size)]
            rng.shuffle(letters)
            items: list[Item] = []
            while len(items) < size:
                fact = world.fact(attribute.subject, rng.choice(ENTITIES[attribute.kind]))
                item = draw(rng, fact, reserved=True, answer=letters[len(items)])
                if item.key not in seen:
                    seen.add(item.key)
                    items.append(item)
            yield split, attribute.subject, items


def check_held_out(text: str, items: list[Item]) -> None:
    """Raise ValueError if `text` asks a question of `items` with its options, in any order."""
    held_out = {(item.question, frozenset(item.options)) for item in items}
    for question, *options in QUESTION_BLOCK.findall(text):
        if (question, frozenset(options)) in held_out:
            raise ValueError(f"exam question in the training text: {question} {sorted(options)}")


def write(world: World, folder: Path) -> list[Item]:
    """Write `folder`/{dev,val,test}/SUBJECT_SPLIT.csv and return all questions written."""
    written: list[Item] = []
    for split, subject, items in exams(world):
        (folder / split).mkdir(parents=True, exist_ok=True)
        with (folder / split / f"{subject}_{split}.csv").open(
            "w", newline="", encoding="utf-8"
        ) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["id", "question", *LETTERS, "answer"])
            for number, item in enumerate(items):
                writer.writerow([number, item.question, *item.options, item.answer])
        written += items
    return written
