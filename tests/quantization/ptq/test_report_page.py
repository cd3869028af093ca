# SPDX-License-Identifier: Apache-2.0
"""The page shows what the report says, and is well-formed whatever names it holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from html.parser import HTMLParser
from typing import Any
from xml.dom import minidom

import pytest

from vllm_mindspore.quantization.ptq import report, report_page
from vllm_mindspore.quantization.ptq.report import LinearReport, Origin, Sizes, Spread

HOSTILE = "<script>alert('&')</script>"


def linear(name: str, output: float | None = 30.0, **changes: Any) -> dict[str, Any]:
    spread = Spread(0.001, 0.002, 0.003)
    entry = LinearReport(
        name=name,
        type="W8A8",
        shape=(4, 8),
        bytes_before=64,
        bytes_after=48,
        weight_sqnr_db=40.0,
        output_sqnr_db=output,
        weight_scale=spread,
        input_scale=0.5,
        input_offset=-3,
        input_range_widened=False,
        outlier_suppression="smooth",
        alpha=0.5,
        smoothing=spread,
        zeros=None,
    )
    return asdict(entry) | changes


def made(entries: list[dict[str, Any]], **changes: Any) -> str:
    origin = Origin("1.0", "golden-stick", {"scheme": "w8a8"}, {"source": HOSTILE})
    return report_page.page(report.content(origin, entries, Sizes(1000, 600)) | changes)


class Tags(HTMLParser):
    """How often each tag is opened, less how often it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: Counter[str] = Counter()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        self.opened[tag] += tag != "meta"

    def handle_endtag(self, tag: str) -> None:
        self.opened[tag] -= 1


def figures(text: str) -> list[minidom.Document]:
    return [
        minidom.parseString(f"<svg{part.partition('</svg>')[0]}</svg>")
        for part in text.split("<svg")[1:]
    ]


def test_names_are_text() -> None:
    text = made([linear(f"model.layers.{i}.mlp.{HOSTILE}") for i in range(2)])
    tags = Tags()
    tags.feed(text)
    assert "script" not in tags.seen
    assert not +tags.opened
    assert not -tags.opened


def test_lines_have_a_point_for_each_layer() -> None:
    names = [f"model.layers.{i}.mlp.{kind}_proj" for i in range(40) for kind in ("up", "down")]
    text = made([linear(name, 20.0 + len(name)) for name in names] + [linear("lm_head")])
    outputs, weights = figures(text)
    for figure in (outputs, weights):
        assert len(figure.getElementsByTagName("polyline")) == 2
        assert len(figure.getElementsByTagName("circle")) == 80
    heights = [float(c.getAttribute("cy")) for c in outputs.getElementsByTagName("circle")]
    assert 0 < min(heights) < max(heights) < 260
    assert "lm_head" in text


@pytest.mark.parametrize("output", [None, -12.0, 0.0, 250.0])
def test_any_error_can_be_drawn(output: float | None) -> None:
    text = made([linear("model.layers.0.mlp.up_proj", output)])
    found = figures(text)
    assert len(found) == (1 if output is None else 2)
    for circle in (c for f in found for c in f.getElementsByTagName("circle")):
        assert 0 <= float(circle.getAttribute("cy")) <= 260


def test_zeros_of_sparse_layers_are_drawn() -> None:
    sparse = [linear(f"model.layers.{i}.mlp.up_proj", zeros=0.25 * i) for i in range(5)]
    *_, drawn = figures(made([*sparse, linear("lm_head")]))
    heights = [float(c.getAttribute("cy")) for c in drawn.getElementsByTagName("circle")]
    assert heights == sorted(heights, reverse=True)
    assert (heights[0], heights[-1]) == (230, 15)
    assert "Weights that are zero" not in made([linear("model.layers.0.mlp.up_proj")])


def test_compressed_layers_are_drawn_for_all_ranks_together() -> None:
    layers = [
        {
            "rank": rank,
            "name": f"model.layers.{index}.mlp.down_proj",
            "shape": [10, 10],
            "zeros": 0.5,
            "bytes": number,
            "ratio": number / 100,
        }
        for index, ranks in enumerate([(50, 70), (110, 130)])
        for rank, number in enumerate(ranks)
    ]
    found = report.compression(2, layers)
    assert found["ratio"] == 360 / 400
    text = made([linear("model.layers.0.mlp.up_proj")], compression=found)
    assert "For 2 ranks: 90.0% of the bytes of int8 weights." in text
    *_, drawn = figures(text)
    low, high = (float(c.getAttribute("cy")) for c in drawn.getElementsByTagName("circle"))
    assert 15 < high < low < 230
    assert (230 - low) / (230 - high) == pytest.approx(60 / 120, rel=0.01)
    assert "model.layers.1.mlp.down_proj of rank 1" in text


def test_an_int8_cache_is_shown() -> None:
    spread = {"min": 0.0125, "median": 0.25, "max": 0.5}
    entry = {"name": f"layers.0.{HOSTILE}", "scale": spread, "sqnr_db": 41.5}
    text = made([], kv_cache=[entry])
    assert HOSTILE not in text
    assert text.count("41.5") == text.count("0.0125") == 1
    assert "Key/value cache" not in made([linear("model.layers.0.mlp.up_proj")])


def test_what_zeros_cost_is_a_table_and_plots() -> None:
    sparse = {"0.3": 0.97, "0.7": 0.91}
    values = {"float": 0.98, "quantized": 0.96, "w8a8": 0.975, "by_zeros": sparse}
    text = made([], evaluation={"accuracy": values, "perplexity": None})
    assert "<h2>What zeros cost</h2><table><tr><th></th><th>accuracy</th></tr>" in text
    assert "<td>w8a8</td><td>97.50 %</td>" in text
    assert "<td>70% zeros</td><td>91.00 %</td>" in text
    (drawn,) = figures(text)
    heights = [float(c.getAttribute("cy")) for c in drawn.getElementsByTagName("circle")]
    assert len(heights) == 6
    assert heights[0] < heights[1]  # fewer are right
    assert len(set(heights[2:4])) == len(set(heights[4:])) == 1  # dense ones are level
    assert "What zeros cost" not in made([])


def test_measures_and_notes_appear() -> None:
    measures = {"accuracy": None, "perplexity": {"float": 1.25, "quantized": 1.375}}
    widened = [linear("model.layers.0.mlp.up_proj", input_range_widened=True)]
    text = made(widened, evaluation=measures)
    assert "<td>perplexity</td>" in text
    assert "1.375" in text
    assert "range was widened" in text
    assert "<td>not measured</td><td>quantize --evaluate CEVAL_DIR does</td>" in text
    assert made([]).count("not measured") == 2
