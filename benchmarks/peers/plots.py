# SPDX-License-Identifier: Apache-2.0
"""Draws figures (report.Figure as JSON on standard input) as SVG files into a folder.

Run by path under an interpreter that has matplotlib:

    python plots.py FOLDER
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
# Text stays text and two runs over the same numbers write the same bytes.
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "peers", "font.size": 9})

from matplotlib import pyplot as plt  # noqa: E402

COLOURS = ("#1f6fb4", "#b0b0b0", "#d98c2b", "#5a9e5a", "#8a6bb8")
HEIGHT_INCHES, LEAST_INCHES, BAR_INCHES = 3.0, 3.6, 0.42
LABEL_CHARACTERS = 12  # of a group's name in one line


def draw_bars(axes: Any, bars: list[dict[str, Any]]) -> None:
    """Groups side by side, the lowest round as a short black mark."""
    width = 0.8 / len(bars)
    for index, series in enumerate(bars):
        places = [g + (index - (len(bars) - 1) / 2) * width for g in range(len(series["groups"]))]
        colour = COLOURS[index % len(COLOURS)]
        drawn = axes.bar(places, series["median"], 0.9 * width, color=colour, label=series["label"])
        axes.bar_label(drawn, fmt="%.3g", fontsize=7)
        axes.scatter(places, series["lowest"], marker="_", color="black", s=40, zorder=3)
    names = [textwrap.fill(name, LABEL_CHARACTERS) for name in bars[0]["groups"]]
    axes.set_xticks(range(len(names)), names)


def draw_lines(axes: Any, lines: list[dict[str, Any]]) -> None:
    """Curves with a mark at each measured point; the axis starts at zero."""
    for index, line in enumerate(lines):
        colour = COLOURS[index % len(COLOURS)]
        axes.plot(line["x"], line["y"], marker="o", color=colour, label=line["label"])
    axes.set_ylim(bottom=0)


def draw(figure: dict[str, Any], file: Path) -> None:
    """One figure into one file."""
    panels = figure["panels"]
    widths = [panel_inches(panel) for panel in panels]
    canvas, grid = plt.subplots(
        *(1, len(panels)),
        figsize=(sum(widths), HEIGHT_INCHES),
        squeeze=False,
        layout="constrained",
        gridspec_kw={"width_ratios": widths},
    )
    for axes, panel in zip(grid[0], panels, strict=True):
        if panel["bars"]:
            draw_bars(axes, panel["bars"])
        else:
            draw_lines(axes, panel["lines"])
        axes.set(title=panel["title"], ylabel=panel["y_label"], xlabel=panel["x_label"])
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = grid[0][0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    canvas.savefig(file, format="svg", metadata={"Date": None})
    plt.close(canvas)


def panel_inches(panel: dict[str, Any]) -> float:
    """Room for each bar and the number above it."""
    bars = sum(len(series["groups"]) for series in panel["bars"])
    return max(LEAST_INCHES, 1 + BAR_INCHES * bars)


def main() -> None:
    """Draws all that standard input describes."""
    folder = Path(sys.argv[1])
    for figure in json.load(sys.stdin):
        draw(figure, folder / f"{figure['name']}.svg")


if __name__ == "__main__":
    main()
