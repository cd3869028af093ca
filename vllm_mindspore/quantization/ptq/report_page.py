# SPDX-License-Identifier: Apache-2.0
"""`quantization_report.html`: the report as one page that needs nothing else to be shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from vllm_mindspore.quantization.ptq import line_plot, report, sparsity_plot
from vllm_mindspore.quantization.ptq.line_plot import Axis
from vllm_mindspore.quantization.ptq.report import Evaluation

_STYLE = """
body { font: 14px/1.4 sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { border-bottom: 1px solid #ccc; padding: 0.2em 0.7em; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
svg { background: #fafafa; border: 1px solid #ddd; margin: 0.5em 0; }
"""
_LAYER = re.compile(r"\.layers\.(\d+)\.(?:.*\.)?([^.]+)$")

Linears = Sequence[Mapping[str, Any]]


def page(content: Mapping[str, Any]) -> str:
    """HTML of what report.content gives."""
    linears: Linears = content["linears"]
    parts = [
        f"<h1>Quantization report</h1>{_summary(content)}",
        _evaluation(content["evaluation"]),
        _comparison(content["evaluation"]),
        _notes(content["notes"]),
        f"<h2>Output error</h2>{_figure(linears, 'output_sqnr_db')}",
        f"<h2>Weight error</h2>{_figure(linears, 'weight_sqnr_db')}",
        _zeros(linears),
        _compression(content["compression"]),
        f"<h2>Layers</h2>{_layers(linears)}",
        _cache(content["kv_cache"]),
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


def _evaluation(measures: Evaluation) -> str:
    return f"<h2>Quality</h2>{_table(('measure', 'float', 'quantized'), report.measured(measures))}"


def _comparison(measures: Evaluation) -> str:
    """Of --compare: a table, and each measure over the share of zeros."""
    if not (found := report.compared(measures)):
        return ""
    heading, *rows = found
    figures = [_over_zeros(name, values) for name, values in measures.items() if values]
    return f"<h2>What zeros cost</h2>{_table(heading, rows)}{''.join(figures)}"


def _over_zeros(measure: str, values: Mapping[str, Any]) -> str:
    percent = measure == report.ACCURACY
    factor, unit = (100.0, "% right") if percent else (1.0, measure)
    sparse = {share: factor * value for share, value in report.by_zeros(values).items()}
    dense = {which: factor * values[which] for which in (report.W8A8, "float")}
    return sparsity_plot.svg("with zeros", sparse, dense, unit)


def _notes(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<h2>Notes</h2><ul>{items}</ul>" if notes else ""


def _layers(linears: Linears) -> str:
    heading = (
        *("layer", "type", "weight SQNR dB", "output SQNR dB", "weight scale: min", "median"),
        *("max", "input scale", "zero point", "suppression", "exponent", "zeros", "bytes"),
        "before",
    )
    return _table(heading, map(_layer, linears))


def _layer(linear: Mapping[str, Any]) -> tuple[object, ...]:
    scale = linear["weight_scale"]
    return (
        *(linear["name"], linear["type"], linear["weight_sqnr_db"], linear["output_sqnr_db"]),
        *(scale["min"], scale["median"], scale["max"]),
        *(linear["input_scale"], linear["input_offset"]),
        *(linear["outlier_suppression"], linear["alpha"], linear["zeros"]),
        *(linear["bytes_after"], linear["bytes_before"]),
    )


def _cache(entries: Sequence[Mapping[str, Any]]) -> str:
    if not entries:
        return ""
    heading = ("keys or values of", "SQNR dB", "scale: min", "median", "max")
    rows = [(entry["name"], entry["sqnr_db"], *entry["scale"].values()) for entry in entries]
    return f"<h2>Key/value cache</h2>{_table(heading, rows)}"


def _lines(linears: Linears, measure: str) -> dict[str, list[tuple[float, float]]]:
    """A line for each kind of layer, over the decoder layers."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for linear in linears:
        place = _LAYER.search(linear["name"])
        if place and linear[measure] is not None:
            lines.setdefault(place[2], []).append((int(place[1]), max(linear[measure], 0.0)))
    return lines


def _zeros(linears: Linears) -> str:
    lines = _lines(linears, "zeros")
    if not lines:
        return ""
    shown = {name: [(x, 100 * y) for x, y in points] for name, points in lines.items()}
    figure = line_plot.svg(shown, Axis(0, 100, 20, "%"), line_plot.over_layers(lines))
    return f"<h2>Weights that are zero</h2>{figure}"


def _compression(found: Mapping[str, Any]) -> str:
    """Bytes of compressed layers in percent of int8, all ranks together."""
    if not found:
        return ""
    layers: dict[str, list[Mapping[str, Any]]] = {}
    for layer in found["layers"]:
        layers.setdefault(layer["name"], []).append(layer)
    together = [
        {"name": name, "ratio": report.compression(found["ranks"], parts)["ratio"]}
        for name, parts in layers.items()
    ]
    lines = _lines(together, "ratio")
    shown = {name: [(x, 100 * y) for x, y in points] for name, points in lines.items()}
    figure = ""
    if lines:
        top = 20 * (1 + max(y for points in shown.values() for _, y in points) // 20)
        figure = line_plot.svg(shown, Axis(0, top, 20, "%"), line_plot.over_layers(lines))
    rows = [
        (f"{layer['name']} of rank {layer['rank']}", layer["zeros"], layer["bytes"], layer["ratio"])
        for layer in found["layers"]
    ]
    table = _table(("layer", "zeros", "bytes", "of int8"), rows)
    summary = f"For {found['ranks']} ranks: {found['ratio']:.1%} of the bytes of int8 weights."
    return f"<h2>Compressed weights</h2><p>{summary}</p>{figure}{table}"


def _figure(linears: Linears, measure: str) -> str:
    """Signal to noise in dB; values below 0 dB, where noise is louder, lie on the axis."""
    lines = _lines(linears, measure)
    if not lines:
        return "<p>Nothing was lost, or no decoder layer was quantized.</p>"
    top = 10.0 * (1 + max(value for points in lines.values() for _, value in points) // 10)
    return line_plot.svg(lines, Axis(0, top, 10, "dB"), line_plot.over_layers(lines))
