# SPDX-License-Identifier: Apache-2.0
"""Kinds of rows of the matrix."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """An architecture that is served.

    Attributes:
        architecture: as in config.json.
        examples: published models that have it.
        checkpoints: names in tests/e2e/checkpoints.py that `models.TESTS` run.
        dtypes: those they run in.
    """

    architecture: str
    examples: str
    checkpoints: tuple[str, ...]
    dtypes: str = "fp32 bf16 fp16"


@dataclass(frozen=True)
class Tested:
    """A feature that was executed.

    Attributes:
        feature: what the user gets.
        result: what the tests establish.
        tests: their node ids without parameters.
    """

    feature: str
    result: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Refused:
    """A feature that is refused by name.

    Attributes:
        feature: what the user asks for.
        instead: what to do.
        check: `module:function` of this package that refuses it, or `unused_options:path`.
    """

    feature: str
    instead: str
    check: str


@dataclass(frozen=True)
class NotRun:
    """Something this project has not executed, or only in part."""

    what: str
    state: str
