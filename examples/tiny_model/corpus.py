# SPDX-License-Identifier: Apache-2.0
"""Writes the whole corpus of the tiny model: train.txt, heldout.txt and the exams in ceval/.

Everything is generated from the word lists in world.py with fixed seeds, so that two runs write
the same bytes.

    python corpus.py OUT_FOLDER [--documents 110000]
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import exam
import stories
from world import ATTRIBUTES, BY_SUBJECT, World

SEPARATOR = "\n<|endoftext|>\n"
TRAIN_SEED, HELDOUT_SEED = 11, 12
HELDOUT_STORIES = 400
# A model learns to recall facts much sooner when it begins with few of them: the first 2 % of the
# corpus are about 8 % of the world, and from 20 % on the texts are about all of it.
SMALLEST_SHARE = 0.08
GROWTH = (0.02, 0.20)
SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You tell little stories.",
    "You know the animals and the people.",
)
GREETINGS = ("Hello!", "Hi!", "Good morning!", "Hello, who are you?")
GREETING = (
    "Hello! I know the animals, the people and the towns. Ask me something, or ask for a story."
)

Writer = Callable[[random.Random, World], str]


def turn(role: str, text: str) -> str:
    """One message in the chat template of the model."""
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def _story_request(rng: random.Random, world: World) -> tuple[str, str]:
    hero, animal = world.entity("person", rng), world.entity("animal", rng)
    about = rng.randrange(4)
    if about == 0:
        return f"Tell me a story about {hero}.", stories.story(rng, world, hero=hero)
    if about == 1:
        return f"Tell me a story about the {animal}.", stories.story(rng, world, animal=animal)
    if about == 2:
        return f"Tell me a story about {hero} and the {animal}.", stories.story(
            rng, world, hero, animal
        )
    ask = rng.choice(
        ["Tell me a story.", "Please tell me a little story.", "I want to hear a story."]
    )
    return ask, stories.story(rng, world)


def _fact_request(rng: random.Random, world: World) -> tuple[str, str]:
    fact = world.any_fact(rng)
    return fact.question(rng), fact.statement()


def _exam_request(rng: random.Random, world: World) -> tuple[str, str]:
    item = exam.training_item(rng, world)
    return item.render(), item.answer


def _greeting(rng: random.Random, world: World) -> tuple[str, str]:
    return rng.choice(GREETINGS), GREETING


def chat(rng: random.Random, world: World) -> str:
    """A conversation of one to four turns."""
    requests = (_story_request, _fact_request, _exam_request, _greeting)
    turns = [turn("system", rng.choice(SYSTEM_PROMPTS))] if rng.random() < 0.2 else []
    for request in rng.choices(requests, (20, 40, 38, 2), k=rng.choice((1, 1, 2, 3, 4))):
        user, assistant = request(rng, world)
        turns += [turn("user", user), turn("assistant", assistant)]
    return "".join(turns).rstrip("\n")


def facts(rng: random.Random, world: World) -> str:
    """A paragraph of three to ten facts, or everything about one entity."""
    if rng.random() < 0.5:
        return " ".join(world.any_fact(rng).statement() for _ in range(rng.randint(3, 10)))
    attribute = rng.choice(ATTRIBUTES)
    entity = world.entity(attribute.kind, rng)
    subjects = [a.subject for a in ATTRIBUTES if a.kind == attribute.kind]
    rng.shuffle(subjects)
    return " ".join(world.fact(subject, entity).statement() for subject in subjects)


def open_questions(rng: random.Random, world: World) -> str:
    """One to six questions with answers in whole sentences."""
    drawn = [world.any_fact(rng) for _ in range(rng.randint(1, 6))]
    return "\n\n".join(
        f"Question: {fact.question(rng)}\nAnswer: {fact.statement()}" for fact in drawn
    )


def mixed_exam(rng: random.Random, world: World) -> str:
    """One to nine four-choice questions of any subjects, with answer letters."""
    return _exam(rng, world, None, rng.choice((1, 1, 2, 3, 4, 6, 9)))


def subject_exam(rng: random.Random, world: World) -> str:
    """Two to seven four-choice questions of one subject, as a prompt with examples has them."""
    return _exam(rng, world, rng.choice(list(BY_SUBJECT)), rng.randint(2, 7))


def open_book_exam(rng: random.Random, world: World) -> str:
    """A few facts, then a question that one of them answers."""
    told = [world.any_fact(rng) for _ in range(rng.randint(1, 4))]
    item = exam.draw(rng, rng.choice(told), reserved=False)
    text = " ".join(fact.statement() for fact in told)
    return f"{text}\n\n{item.render()}\nAnswer: {item.answer}"


def _exam(rng: random.Random, world: World, subject: str | None, size: int) -> str:
    items = [exam.training_item(rng, world, subject) for _ in range(size)]
    return "\n\n".join(f"{item.render()}\nAnswer: {item.answer}" for item in items)


WRITERS: dict[Writer, int] = {
    stories.story: 18,
    stories.long_story: 3,
    stories.flag_story: 3,
    chat: 18,
    facts: 16,
    open_questions: 8,
    open_book_exam: 8,
    mixed_exam: 22,
    subject_exam: 4,
}


def share_at(place: float) -> float:
    """The share of the world that a text at this place of the corpus (0 to 1) is about."""
    begin, end = GROWTH
    return SMALLEST_SHARE + (1 - SMALLEST_SHARE) * min(1, max(0, (place - begin) / (end - begin)))


def documents(world: World, count: int, seed: int) -> Iterator[str]:
    """`count` documents of all kinds, about a growing part of the world."""
    rng = random.Random(seed)
    writers = rng.choices(list(WRITERS), list(WRITERS.values()), k=count)
    for index, writer in enumerate(writers):
        yield writer(rng, world.beginning(share_at(index / count)))


def heldout(world: World) -> str:
    """Stories of the same world from another seed, for perplexity."""
    rng = random.Random(HELDOUT_SEED)
    return SEPARATOR.join(stories.story(rng, world) for _ in range(HELDOUT_STORIES))


def write(out: Path, count: int) -> None:
    """Write the exams, heldout.txt and train.txt with `count` documents into `out`."""
    world = World()
    out.mkdir(parents=True, exist_ok=True)
    held_out = exam.write(world, out / "ceval")
    (out / "heldout.txt").write_text(heldout(world), encoding="utf-8")
    text = SEPARATOR.join(documents(world, count, TRAIN_SEED))
    exam.check_held_out(text, held_out)
    (out / "train.txt").write_text(text, encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for train.txt, heldout.txt and ceval/")
    parser.add_argument("--documents", type=int, default=110_000, help="documents in train.txt")
    args = parser.parse_args()
    write(args.out, args.documents)


if __name__ == "__main__":
    main()
