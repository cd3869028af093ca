# SPDX-License-Identifier: Apache-2.0
"""Little stories that agree with the facts of the world."""

from __future__ import annotations

import random
from dataclasses import dataclass

from world import COLORS, World

PLACES = (
    "park",
    "market",
    "lake",
    "school",
    "bridge",
    "library",
    "beach",
    "fountain",
    "station",
    "playground",
)
MOODS = ("sad", "tired", "afraid", "lonely", "angry", "worried", "cold", "lost")
WEATHERS = (
    "The sun was shining.",
    "It was raining.",
    "The wind was cold.",
    "It was a quiet morning.",
)


def with_article(noun: str) -> str:
    """The noun with "a" or "an" before it."""
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"


@dataclass(frozen=True)
class Cast:
    """Who is in a story, with everything the sentences say about them."""

    hero: str
    helper: str
    animal: str
    job: str
    town: str
    thing: str
    dish: str
    helper_job: str
    helper_thing: str
    home: str
    food: str
    color: str
    friend: str
    product: str
    river: str
    place: str
    mood: str


def cast(
    rng: random.Random, world: World, hero: str | None = None, animal: str | None = None
) -> Cast:
    """A cast around the given hero and animal, or around drawn ones."""
    hero = hero or world.entity("person", rng)
    helper = world.entity("person", rng)
    while helper == hero:
        helper = world.entity("person", rng)
    animal = animal or _animal(rng, world, hero)
    town = world.value("person_town", hero)
    return Cast(
        hero=hero,
        helper=helper,
        animal=animal,
        job=world.value("person_job", hero),
        town=town,
        thing=world.value("person_thing", hero),
        dish=world.value("person_dish", hero),
        helper_job=world.value("person_job", helper),
        helper_thing=world.value("person_thing", helper),
        home=world.value("animal_home", animal),
        food=world.value("animal_food", animal),
        color=world.value("animal_color", animal),
        friend=world.value("animal_friend", animal),
        product=world.value("town_product", town),
        river=world.value("town_river", town),
        place=rng.choice(PLACES),
        mood=rng.choice(MOODS),
    )


def _animal(rng: random.Random, world: World, hero: str) -> str:
    pet = world.value("person_pet", hero)
    known = pet in world.entities("animal")
    return pet if known and rng.random() < 0.5 else world.entity("animal", rng)


def _opening(rng: random.Random, c: Cast) -> str:
    return rng.choice(
        [
            f"Once upon a time there was {with_article(c.job)} named {c.hero}.",
            f"One day {c.hero} from {c.town} went to the {c.place}.",
            f"{c.hero} was {with_article(c.job)} in {c.town}, a town known for {c.product}.",
            f"In the town of {c.town} there lived {with_article(c.job)} named {c.hero}.",
            f"{c.hero} lived in {c.town}, where the river {c.river} flows.",
        ]
    )


def _carrying(rng: random.Random, c: Cast) -> str:
    return rng.choice(
        [
            f"{c.hero} carried {with_article(c.thing)}, as always.",
            f"{c.hero} never went out without the {c.thing}.",
            f"{rng.choice(WEATHERS)} {c.hero} took the {c.thing} and a bag with {c.dish}.",
        ]
    )


def _meeting(rng: random.Random, c: Cast) -> str:
    return rng.choice(
        [
            f"At the {c.place} {c.hero} saw {with_article(c.color)} {c.animal}.",
            f"Near the {c.home} {c.hero} met the {c.animal}, and the {c.animal} was {c.color}.",
            f"There sat {with_article(c.animal)}, all {c.color}, and it looked {c.mood}.",
        ]
    )


def _trouble(rng: random.Random, c: Cast) -> str:
    return rng.choice(
        [
            f"The {c.animal} was {c.mood} because it had no {c.food}.",
            f"The {c.animal} looked {c.mood} and wanted {c.food}.",
            f"It was far from the {c.home} and felt {c.mood}.",
            f"The {c.animal} could not find its friend, the {c.friend}.",
        ]
    )


def _help(rng: random.Random, c: Cast) -> str:
    return rng.choice(
        [
            f"{c.hero} gave the {c.animal} some {c.food}.",
            f"{c.hero} called {c.helper}, the {c.helper_job}, for help.",
            f"{c.helper} came with {with_article(c.helper_thing)} and "
            f"they looked for {c.food} together.",
            f"{c.hero} asked {c.helper}, who works as {with_article(c.helper_job)}, what to do.",
        ]
    )


def _talk(rng: random.Random, c: Cast) -> str:
    return rng.choice(
        [
            f'"Do not be {c.mood}," said {c.hero}. "I will take you home."',
            f'"Thank you," said the {c.animal}. "You are kind."',
            f"{c.hero} and {c.helper} laughed and played with the {c.thing}.",
            f'"Where do you live?" asked {c.hero}. "In the {c.home}," said the {c.animal}.',
            f'"What do you eat?" asked {c.helper}. "I eat {c.food}," said the {c.animal}.',
        ]
    )


def _way_home(rng: random.Random, c: Cast) -> str:
    return rng.choice(
        [
            f"Then they all walked to the {c.home}.",
            f"In the evening the {c.animal} went back to the {c.home}.",
            f"The {c.animal} ate the {c.food} and slept in the {c.home}.",
            f"The {c.friend} was waiting in the {c.home} and they played until night.",
        ]
    )


def _ending(rng: random.Random, c: Cast) -> str:
    return rng.choice(
        [
            f"{c.hero} was happy and went home to {c.town}.",
            f"From that day on {c.hero} and the {c.animal} were friends.",
            f"And {c.hero} told the story to everyone in {c.town}.",
            f"At home {c.hero} ate {c.dish} and slept well.",
        ]
    )


def story(
    rng: random.Random, world: World, hero: str | None = None, animal: str | None = None
) -> str:
    """One story in one paragraph, about 120 words."""
    c = cast(rng, world, hero, animal)
    parts = (_opening, _carrying, _meeting, _trouble, _help, _talk, _way_home, _ending)
    return " ".join(part(rng, c) for part in parts)


def long_story(rng: random.Random, world: World) -> str:
    """Two to eight paragraphs about the same person, who meets another animal in each."""
    hero = world.entity("person", rng)
    known = world.entities("animal")
    animals = rng.sample(known, rng.randint(2, min(8, len(known))))
    return "\n\n".join(story(rng, world, hero, animal) for animal in animals)


def flag_story(rng: random.Random, world: World) -> str:
    """A short walk through one town: its river, its flag and what it is known for."""
    town = world.entity("town", rng)
    hero = world.entity("person", rng)
    flag = world.value("town_flag", town)
    other = rng.choice([color for color in COLORS if color != flag])
    return " ".join(
        [
            f"One day {hero} came to {town}.",
            f"{hero} walked along the river {world.value('town_river', town)}.",
            f'"Is your flag {other}?" asked {hero}.',
            f'"No," said a child. "The flag of {town} is {flag}."',
            f"Then {hero} bought {world.value('town_product', town)} at the market and went home.",
        ]
    )
