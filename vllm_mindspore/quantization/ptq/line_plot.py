# SPDX-License-Identifier: Apache-2.0
"""Lines over numbers as an SVG image, in a page or as a file of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_COLOURS = ("#1f6fb4", "#d98c2b", "#5a9e5a", "#8a6bb8", "#b03a48", "#4aa3a3", "#777777")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _LEGEND = 760, 260, 50, 30, 15, 110
_MOST_LABELS = 16

Points = Sequence[tuple[float, float]]
Lines = Mapping[str, Points]


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, with a number at every `step` and a unit at its end."""

    low: float
    high: float
    step: float
    unit: str = ""

    def share(self, value: float) -> float:
        """Where a value is, 0 to 1."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Where numbers are."""
        count = int((self.high - self.low) / self.step + 1e-9)
        return [self.low + index * self.step for index in range(count + 1)]


def over_layers(lines: Lines) -> Axis:
    """The axis of decoder layers, which count from 0."""
    last = max(int(x) for points in lines.values() for x, _ in points)
    return Axis(0, max(last, 1), 1 + last // _MOST_LABELS)


def svg(lines: Lines, y: Axis, x: Axis) -> str:
    """The image: a line and its name for each entry, dots where values are."""
    size = f'width="{_WIDTH + _LEGEND}" height="{_HEIGHT}"'
    drawn = [
        _line(name, points, number, x, y) for number, (name, points) in enumerate(lines.items())
    ]
    style = 'font-family="sans-serif" style="background: #fafafa" role="img"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>'
    return f"{head}{_axes(x, y)}{''.join(drawn)}</svg>"


def _x(value: float, axis: Axis) -> float:
    return _LEFT + (_WIDTH - _LEFT - _TOP) * axis.share(value)


def _y(value: float, axis: Axis) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * axis.share(value)


def _axes(x: Axis, y: Axis) -> str:
    parts = []
    for value in y.ticks():
        height = _y(value, y)
        place = f'x1="{_LEFT}" x2="{_WIDTH - _TOP}" y1="{height:.1f}" y2="{height:.1f}"'
        parts.append(f'<line {place} stroke="#ddd"/>')
        parts.append(_text(_LEFT - 8, height + 4, f"{value:.4g}", "end"))
    parts.extend(_text(_x(value, x), _HEIGHT - 10, f"{value:.4g}", "middle") for value in x.ticks())
    if x.unit:
        parts.append(_text(_WIDTH, _HEIGHT - 10, x.unit, "start"))
    return "".join([*parts, _text(_LEFT + 4, _TOP + 10, y.unit, "start")])


def _line(name: str, points: Points, number: int, x: Axis, y: Axis) -> str:
    colour = _COLOURS[number % len(_COLOURS)]
    places = [(_x(across, x), _y(up, y)) for across, up in sorted(points)]
    path = " ".join(f"{across:.1f},{up:.1f}" for across, up in places)
    dots = "".join(
        f'<circle cx="{across:.1f}" cy="{up:.1f}" r="2.5" fill="{colour}"/>'
        for across, up in places
    )
    label = _text(_WIDTH, _TOP + 16 * (number + 1), name, "start", colour)
    return f'<polyline points="{path}" fill="none" stroke="{colour}"/>{dots}{label}'


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#333") -> str:
    style = f'font-size="12" text-anchor="{anchor}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
