# SPDX-License-Identifier: Apache-2.0
"""`quantization_report.html`: the report as one page that needs nothing else to be shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
body { font: 14px/1.4 sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { border-bottom: 1px solid #ccc; padding: 0.2em 0.7em; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
svg { background: #fafafa; border: 1px solid #ddd; margin: 0.5em 0; }
"""
_COLOURS = ("#1f6fb4", "#d98c2b", "#5a9e5a", "#8a6bb8", "#b03a48", "#4aa3a3", "#777777")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _LEGEND = 760, 260, 50, 30, 15, 110
_LAYER = re.compile(r"\.layers\.(\d+)\.(?:.*\.)?([^.]+)$")

Linears = Sequence[Mapping[str, Any]]


def page(content: Mapping[str, Any]) -> str:
    """HTML of what report.content gives."""
    linears: Linears = content["linears"]
    parts = [
        f"<h1>Quantization report</h1>{_summary(content)}",
        _evaluation(content["evaluation"]),
        _notes(content["notes"]),
        f"<h2>Output error</h2>{_figure(linears, 'output_sqnr_db')}",
        f"<h2>Weight error</h2>{_figure(linears, 'weight_sqnr_db')}",
        f"<h2>Layers</h2>{_layers(linears)}",
    ]
    title = "<title>Quantization report</title>"
    head = f'<meta charset="utf-8">{title}<style>{_STYLE}</style>'
    return f"<!DOCTYPE html>\n<html><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def _table(heading: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    first = "".join(f"<th>{escape(cell)}</th>" for cell in heading)
    rest = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><tr>{first}</tr>{rest}</table>"


def _cell(value: object) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        text = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
        return f'<td class="number">{text}</td>'
    return f"<td>{escape('' if value is None else str(value))}</td>"


def _summary(content: Mapping[str, Any]) -> str:
    sizes = content["sizes"]
    options = [(name, value) for name, value in content["options"].items() if value]
    return _table(
        ("", ""),
        [
            ("made by", f"vllm-mindspore {content['version']}"),
            ("writer", content["writer"]),
            *((name.replace("_", " "), value) for name, value in options if name != "writer"),
            *((f"calibration {name}", value) for name, value in content["calibration"].items()),
            ("bytes of the float model", sizes["bytes_before"]),
            ("bytes of this checkpoint", sizes["bytes_after"]),
            ("quantized layers", len(content["linears"])),
        ],
    )


def _evaluation(measures: Mapping[str, Mapping[str, float]]) -> str:
    if not measures:
        return ""
    rows = [(name, value["float"], value["quantized"]) for name, value in measures.items()]
    return f"<h2>Quality</h2>{_table(('measure', 'float', 'quantized'), rows)}"


def _notes(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<h2>Notes</h2><ul>{items}</ul>" if notes else ""


def _layers(linears: Linears) -> str:
    heading = (
        *("layer", "type", "weight SQNR dB", "output SQNR dB", "weight scale: min", "median"),
        *("max", "input scale", "zero point", "suppression", "exponent", "bytes", "before"),
    )
    return _table(heading, map(_layer, linears))


def _layer(linear: Mapping[str, Any]) -> tuple[object, ...]:
    scale = linear["weight_scale"]
    return (
        *(linear["name"], linear["type"], linear["weight_sqnr_db"], linear["output_sqnr_db"]),
        *(scale["min"], scale["median"], scale["max"]),
        *(linear["input_scale"], linear["input_offset"]),
        *(linear["outlier_suppression"], linear["alpha"]),
        *(linear["bytes_after"], linear["bytes_before"]),
    )


def _figure(linears: Linears, measure: str) -> str:
    """A line for each kind of layer: signal to noise in dB over the decoder layers."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for linear in linears:
        place = _LAYER.search(linear["name"])
        if place and linear[measure] is not None:
            lines.setdefault(place[2], []).append((int(place[1]), linear[measure]))
    if not lines:
        return "<p>Nothing was lost, or no decoder layer was quantized.</p>"
    last = max(layer for points in lines.values() for layer, _ in points)
    top = 10.0 * (1 + max(value for points in lines.values() for _, value in points) // 10)
    drawn = [
        _line(name, points, index, last, top) for index, (name, points) in enumerate(lines.items())
    ]
    size = f'width="{_WIDTH + _LEGEND}" height="{_HEIGHT}"'
    return f'<svg {size} role="img">{_axes(last, top)}{"".join(drawn)}</svg>'


def _x(layer: float, last: int) -> float:
    return _LEFT + (_WIDTH - _LEFT - _TOP) * layer / max(last, 1)


def _y(value: float, top: float) -> float:
    """Values below 0 dB, where noise is louder than signal, lie on the axis."""
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * max(value, 0.0) / top


def _axes(last: int, top: float) -> str:
    parts = []
    for value in range(0, int(top) + 1, 10):
        y = _y(value, top)
        end = _WIDTH - _TOP
        parts.append(f'<line x1="{_LEFT}" x2="{end}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{value}", "end"))
    for layer in range(0, last + 1, 1 + last // 16):
        parts.append(_text(_x(layer, last), _HEIGHT - 10, f"{layer}", "middle"))
    return "".join([*parts, _text(_LEFT + 4, _TOP + 10, "dB", "start")])


def _line(name: str, points: Sequence[tuple[int, float]], index: int, last: int, top: float) -> str:
    colour = _COLOURS[index % len(_COLOURS)]
    places = [(_x(layer, last), _y(value, top)) for layer, value in sorted(points)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in places
    )
    label = _text(_WIDTH, _TOP + 16 * (index + 1), name, "start", colour)
    return f'<polyline points="{path}" fill="none" stroke="{colour}"/>{dots}{label}'


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#333") -> str:
    style = f'font-size="12" text-anchor="{anchor}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
