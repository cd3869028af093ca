# SPDX-License-Identifier: Apache-2.0
"""The page."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from docs.matrix import features, hardware, models
from docs.matrix.rows import Model, Tested
from vllm_mindspore.unused_options import UNUSED, UNUSED_EARLY, UNUSED_VARIABLES

_INTRODUCTION = """# Models and features

Generated from `docs/matrix/` by `make docs`; do not edit.

"Tested" means: executed and compared with an independent reference in the tests that a row links
to. Everything that is not supported is refused by name; nothing is silently ignored.
"""

_MODELS_NOTE = """
Tested on random checkpoints that cover tied and untied heads, single and sharded files,
grouped-query, multi-query and multi-head attention, head sizes independent of the hidden size,
biases and rope types; and on the trained tiny model. Larger published checkpoints follow the same
rules for tensors and shapes but have not been run here: no model hub was reachable.
"""


def markdown() -> str:
    """The page."""
    parts = [
        _INTRODUCTION,
        "## Models\n",
        _table(
            ("Architecture (`config.json`)", "Examples", "CPU", "Ascend", "Tests"),
            (_model_row(model) for model in models.MODELS),
        ),
        _MODELS_NOTE,
        _table(("config.json", "Supported", "Tests"), map(_tested_row, models.CONFIG)),
        "\n## Features\n",
        _table(("Feature", "Tested on CPU", "Tests"), map(_tested_row, features.FEATURES)),
        "\n## Refused\n",
        _table(("Feature", "Instead"), ((row.feature, row.instead) for row in features.REFUSED)),
        "\n### Options that nothing here reads\n",
        "Refused unless at vLLM's default or at a value that asks for what happens anyway.\n",
        _table(("Section", "Options"), _unused_rows()),
        "\nEnvironment variables, likewise: "
        + ", ".join(f"`{variable.name}`" for variable in UNUSED_VARIABLES)
        + ".",
        "\n## Hardware\n",
        _table(
            ("Hardware", "State", "Tests"), [*map(_tested_row, hardware.TESTED), *_hardware_rows()]
        ),
    ]
    return "\n".join(parts) + "\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _model_row(model: Model) -> tuple[str, ...]:
    tests = _links(models.TESTS)
    state = f"tested, {model.dtypes}"
    return f"`{model.architecture}`", model.examples, state, "not run", tests


def _tested_row(row: Tested) -> tuple[str, ...]:
    return row.feature, row.result, _links(row.tests)


def _hardware_rows() -> list[tuple[str, ...]]:
    return [(row.what, row.state, "") for row in hardware.NOT_RUN]


def _links(tests: tuple[str, ...]) -> str:
    """One link per file of tests."""
    files = dict.fromkeys(test.partition("::")[0] for test in tests)
    return ", ".join(f"[{name.rpartition('/')[2]}](../{name})" for name in files)


def _unused_rows() -> list[tuple[str, ...]]:
    """Rows by section of VllmConfig; a section as a whole has all of its options."""
    paths = sorted(row.path for row in (*UNUSED, *UNUSED_EARLY))
    rows: list[tuple[str, ...]] = []
    for section, group in groupby(paths, lambda path: path.partition(".")[0]):
        names = [path.partition(".")[2] for path in group]
        listed = ", ".join(f"`{name}`" for name in names if name)
        rows.append((f"`{section}`", listed or "all"))
    return rows
