# SPDX-License-Identifier: Apache-2.0
"""What a part measured, as a Markdown table and as a figure."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

_PLOTS = Path(__file__).with_name("plots.py")


class Ratio(Enum):
    """How two values are compared: with Q ours and P the peer's."""

    SPEEDUP = "P/Q"  # of times: how many times as fast we are
    SHARE = "Q/P"  # of times and memory: which part of the peer's; of throughput: how many times


@dataclass(frozen=True)
class Pair:
    """One quantity on both sides, a value per round each, in the same order of rounds.

    Attributes:
        name: the row's title.
        unit: of the values.
        ours, peer: the values.
        ratio: how to compare them.
        goal: what the project wants of the ratio, "" for nothing.
        remark: rates and the like.
    """

    name: str
    unit: str
    ours: tuple[float, ...]
    peer: tuple[float, ...]
    ratio: Ratio
    goal: str = ""
    remark: str = ""

    def compared(self) -> float:
        """Median over the rounds of the ratio within a round."""
        pairs = zip(self.ours, self.peer, strict=True)
        speedup = self.ratio is Ratio.SPEEDUP
        return statistics.median(p / q if speedup else q / p for q, p in pairs)

    def markdown(self) -> str:
        """A table row."""
        sides = " | ".join(f"{_median(v)} | {_number(min(v))}" for v in (self.ours, self.peer))
        goal = f", goal {self.goal}" if self.goal else ""
        ratio = f"{self.ratio.value} = {self.compared():.2f}{goal}"
        return f"| {self.name} | {self.unit} | {sides} | {ratio} | {self.remark} |"


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def _median(values: Sequence[float]) -> str:
    return _number(statistics.median(values))


def _number(value: float) -> str:
    """Three significant digits, but no digit before the point is dropped."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def table(pairs: Sequence[Pair]) -> str:
    """The rows below their heading: Q is this plugin, P the peer."""
    rounds = len(pairs[0].ours)
    heading = f"| {rounds} rounds | unit | Q median | Q lowest | P median | P lowest | ratio | |"
    return "\n".join([heading, "|---|---|---|---|---|---|---|---|", *(p.markdown() for p in pairs)])


@dataclass(frozen=True)
class Line:
    """A curve: values over x."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Bars:
    """Values of several groups for one series; `lowest` is drawn as a mark."""

    label: str
    groups: tuple[str, ...]
    median: tuple[float, ...]
    lowest: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """One plot: bars or lines."""

    title: str
    y_label: str
    x_label: str = ""
    bars: tuple[Bars, ...] = ()
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True)
class Figure:
    """One image: panels side by side.

    Attributes:
        name: of the image file, without ending.
        alternative: what the image shows, for those who cannot see it.
    """

    name: str
    alternative: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Part:
    """The result of one part: text for its section of the page, and its figures."""

    text: str
    figures: tuple[Figure, ...] = ()


def bar_panel(title: str, pairs: Sequence[Pair], names: tuple[str, str]) -> Panel:
    """The pairs as groups of two bars; all pairs have the unit of the first."""
    groups = tuple(pair.name for pair in pairs)
    bars = [
        Bars(label, groups, tuple(map(median, values)), tuple(map(min, values)))
        for label, values in zip(
            names, ([p.ours for p in pairs], [p.peer for p in pairs]), strict=True
        )
    ]
    return Panel(title, pairs[0].unit, bars=tuple(bars))


def draw(figures: Sequence[Figure], folder: Path, python: Path) -> None:
    """Writes NAME.svg of each figure into `folder`; matplotlib runs under `python`."""
    folder.mkdir(parents=True, exist_ok=True)
    request: list[dict[str, Any]] = [asdict(figure) for figure in figures]
    command = [str(python), str(_PLOTS), str(folder)]
    subprocess.run(command, input=json.dumps(request), text=True, check=True)
