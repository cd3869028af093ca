# SPDX-License-Identifier: Apache-2.0
"""The little world: who lives in it, and the one value of every fact.

A fact is (attribute, entity) -> value, drawn once from a seed. Entities differ in how often texts
mention them (rank r with weight 1 / (r + 20)), so a trained model knows some facts better than
others.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass

WORLD_SEED = 7
RANK_OFFSET = (
    10  # the rarest of 120 people is named about 12 times less often than the most frequent one
)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


ANIMALS = _words(
    "fox, bear, rabbit, owl, hedgehog, otter, badger, mouse, frog, squirrel, heron, mole, deer, "
    "wolf, duck, beaver, crow, turtle, goat, hen, lynx, stork, weasel, toad, robin, swan, bat, "
    "snake, lizard, pony, donkey, goose, magpie, marten, newt, sparrow, falcon, boar, ferret, "
    "crane"
)
PEOPLE = _words(
    "Mia, Tom, Lily, Ben, Anna, Max, Sara, Leo, Nora, Finn, Ella, Paul, Ruth, Hugo, Ida, Oskar, "
    "Vera, Jon, Clara, Emil, Greta, Karl, Hanna, Otto, Lena, Felix, Marta, Simon, Julia, Peter, "
    "Alma, Viktor, Rosa, Anton, Eva, Martin, Lotte, David, Helen, Oliver, Nina, Robert, Tilda, "
    "Samuel, Agnes, Henry, Iris, Walter, Olga, Edgar, Maria, Fred, Sofia, George, Elsa, Arthur, "
    "Paula, Daniel, Edith, Theo, Laura, Frank, Amelia, Jacob"
)
TOWNS = _words(
    "Alder, Birch, Cedar, Dunham, Elmsford, Fernwick, Glenn, Holt, Ivywell, Juniper, Kelton, "
    "Larch, Marsby, Norwood, Oakham, Pinecot, Quarry, Rowan, Stonely, Thornby, Upfield, Velby, "
    "Willow, Yarrow"
)
HOMES = _words(
    "forest, meadow, river, hollow tree, barn, garden, hill, pond, cave, old mill, orchard, "
    "marsh, hedge, cliff, haystack, stable, stone wall, vineyard, attic, cellar"
)
FOODS = _words(
    "berries, fish, carrots, seeds, apples, honey, corn, nuts, clover, mushrooms, pears, "
    "acorns, snails, lettuce, cherries, roots, worms, grapes, turnips, crumbs"
)
COLORS = _words(
    "red, brown, white, grey, black, green, golden, blue, orange, purple, pink, silver, yellow, "
    "violet"
)
JOBS = _words(
    "baker, teacher, farmer, doctor, sailor, painter, gardener, miller, tailor, smith, weaver, "
    "carpenter, hunter, cook, potter, singer, shepherd, mason, fisher, barber, postman, "
    "cobbler, judge, clerk"
)
THINGS = _words(
    "ball, kite, lantern, boat, drum, basket, book, hat, bell, key, flute, map, mirror, rope, "
    "spoon, candle, ring, scarf, whistle, bottle, hammer, pencil, coin, blanket"
)
DISHES = _words(
    "pea soup, plum cake, pancakes, roast beef, noodles, apple pie, fried eggs, rice pudding, "
    "dumplings, potato salad, cheese toast, onion tart, bean stew, waffles, porridge, nut "
    "bread, tomato rice, cream puffs, pickled fish, jam rolls"
)
PRODUCTS = _words(
    "glass, wool, cheese, paper, clocks, wine, shoes, silk, tea, salt, carpets, pottery, "
    "knives, ribbons, soap, violins, barrels, lace, toys, candles, cider, bricks, saddles, "
    "pearls"
)
RIVERS = _words(
    "Amber, Brook, Calder, Dove, Esk, Fleet, Garne, Hazel, Isen, Jory, Kenn, Lune, Mallow, "
    "Neath, Orrin, Pell, Rill, Severn, Tamar, Wye"
)


@dataclass(frozen=True)
class Attribute:
    """One kind of fact: how to ask for it, how to state it, and which values it can take."""

    kind: str
    name: str
    questions: tuple[str, ...]
    statement: str
    values: tuple[str, ...]

    @property
    def subject(self) -> str:
        """The exam subject: the stem of its CSV files."""
        return f"{self.kind}_{self.name}"


ENTITIES: dict[str, tuple[str, ...]] = {"animal": ANIMALS, "person": PEOPLE, "town": TOWNS}

ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute(
        "animal",
        "home",
        ("Where does the {s} live?", "What is the home of the {s}?"),
        "The {s} lives in the {v}.",
        HOMES,
    ),
    Attribute(
        "animal",
        "food",
        ("What does the {s} eat?", "What is the food of the {s}?"),
        "The {s} eats {v}.",
        FOODS,
    ),
    Attribute(
        "animal",
        "color",
        ("What color is the {s}?", "Which color does the {s} have?"),
        "The {s} is {v}.",
        COLORS,
    ),
    Attribute(
        "animal",
        "friend",
        ("Who is the friend of the {s}?", "With whom does the {s} play?"),
        "The {s} plays with the {v}.",
        ANIMALS,
    ),
    Attribute(
        "person",
        "job",
        ("What is the work of {s}?", "What does {s} do for work?"),
        "{s} works as a {v}.",
        JOBS,
    ),
    Attribute(
        "person",
        "town",
        ("In which town does {s} live?", "Where is the house of {s}?"),
        "{s} lives in {v}.",
        TOWNS,
    ),
    Attribute(
        "person",
        "pet",
        ("Which animal does {s} love most?", "What is the favorite animal of {s}?"),
        "{s} loves the {v} most.",
        ANIMALS,
    ),
    Attribute(
        "person",
        "thing",
        ("What does {s} always carry?", "Which thing belongs to {s}?"),
        "{s} always carries a {v}.",
        THINGS,
    ),
    Attribute(
        "person",
        "dish",
        ("What does {s} like to eat?", "What is the favorite dish of {s}?"),
        "{s} likes {v} best.",
        DISHES,
    ),
    Attribute(
        "town",
        "product",
        ("What is made in {s}?", "For what is {s} known?"),
        "{s} is known for {v}.",
        PRODUCTS,
    ),
    Attribute(
        "town",
        "river",
        ("Which river flows through {s}?", "What is the river of {s} called?"),
        "The river {v} flows through {s}.",
        RIVERS,
    ),
    Attribute(
        "town",
        "flag",
        ("What color is the flag of {s}?", "Which color does the flag of {s} have?"),
        "The flag of {s} is {v}.",
        COLORS,
    ),
)
RANK_WEIGHTS = tuple(1.0 / (rank + RANK_OFFSET) for rank in range(max(map(len, ENTITIES.values()))))
BY_SUBJECT: dict[str, Attribute] = {attribute.subject: attribute for attribute in ATTRIBUTES}


@dataclass(frozen=True)
class Fact:
    """One true statement of the world."""

    attribute: Attribute
    entity: str
    value: str

    def question(self, rng: random.Random) -> str:
        """One of the attribute's questions about the entity."""
        return rng.choice(self.attribute.questions).format(s=self.entity)

    def statement(self) -> str:
        """The fact as a sentence."""
        return self.attribute.statement.format(s=self.entity, v=self.value)


class World:
    """All facts, and draws of entities by how often texts mention them."""

    def __init__(self, seed: int = WORLD_SEED) -> None:
        rng = random.Random(seed)
        self._values: dict[tuple[str, str], str] = {}
        for attribute in ATTRIBUTES:
            for entity in ENTITIES[attribute.kind]:
                others = [value for value in attribute.values if value != entity]
                self._values[attribute.subject, entity] = rng.choice(others)
        self._drawn = dict(ENTITIES)

    def beginning(self, share: float) -> World:
        """The same world, of which only the first `share` of each kind (at least four) is drawn."""
        part = copy.copy(self)
        part._drawn = {
            kind: names[: max(4, round(share * len(names)))] for kind, names in ENTITIES.items()
        }
        return part

    def value(self, subject: str, entity: str) -> str:
        """The value of one fact; KeyError when the world has no such fact."""
        return self._values[subject, entity]

    def fact(self, subject: str, entity: str) -> Fact:
        """The fact as an object; KeyError when the world has no such fact."""
        return Fact(BY_SUBJECT[subject], entity, self.value(subject, entity))

    def entity(self, kind: str, rng: random.Random) -> str:
        """An entity of this kind, frequent ones more often."""
        names = self._drawn[kind]
        return rng.choices(names, RANK_WEIGHTS[: len(names)])[0]

    def entities(self, kind: str) -> tuple[str, ...]:
        """All entities of this kind that are drawn."""
        return self._drawn[kind]

    def any_fact(self, rng: random.Random) -> Fact:
        """A fact of a uniformly drawn subject about an entity drawn by frequency."""
        return self.fact_of(rng.choice(ATTRIBUTES).subject, rng)

    def fact_of(self, subject: str, rng: random.Random) -> Fact:
        """A fact of this subject about an entity drawn by frequency."""
        return self.fact(subject, self.entity(BY_SUBJECT[subject].kind, rng))
