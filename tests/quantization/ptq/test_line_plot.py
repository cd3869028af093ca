# SPDX-License-Identifier: Apache-2.0
"""Where lines, dots and numbers are."""

from __future__ import annotations

from xml.dom import minidom

import pytest

from vllm_mindspore.quantization.ptq import line_plot
from vllm_mindspore.quantization.ptq.line_plot import Axis


def test_dots_are_where_their_values_are() -> None:
    lines = {"a": [(0.0, 0.0), (10.0, 5.0)], "<b>": [(5.0, 2.5)]}
    image = minidom.parseString(line_plot.svg(lines, Axis(0, 5, 1, "dB"), Axis(0, 10, 5)))
    places = [
        (float(c.getAttribute("cx")), float(c.getAttribute("cy")))
        for c in image.getElementsByTagName("circle")
    ]
    (left, bottom), (right, top), middle = places
    assert left < right
    assert top < bottom
    assert middle == ((left + right) / 2, (top + bottom) / 2)
    texts = [t.firstChild.nodeValue for t in image.getElementsByTagName("text") if t.firstChild]
    assert texts == ["0", "1", "2", "3", "4", "5", "0", "5", "10", "dB", "a", "<b>"]


@pytest.mark.parametrize("last", [0, 1, 16, 17, 19, 61])
def test_numbers_of_layers_stay_in_the_image(last: int) -> None:
    axis = line_plot.over_layers({"a": [(float(last), 1.0)]})
    ticks = axis.ticks()
    assert ticks[0] == 0
    assert max(last, 1) - axis.step < ticks[-1] <= max(last, 1)
    assert len(ticks) <= 17
