# SPDX-License-Identifier: Apache-2.0
"""A measure over the share of zeros, as an image."""

from __future__ import annotations

from xml.dom import minidom

import pytest

from vllm_mindspore.quantization.ptq import sparsity_plot


def texts(image: str) -> list[str]:
    found = minidom.parseString(image).getElementsByTagName("text")
    return [element.firstChild.data for element in found]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("sparse", "dense", "shown"),
    [
        ({0.3: 96.8, 0.7: 94.2}, {"float": 96.6}, ["94", "95", "96", "97"]),
        ({0.3: 1.31, 0.7: 1.36}, {"float": 1.30}, ["1.3", "1.31", "1.36", "1.37"]),
        ({0.5: 12.0, 0.6: 310.0}, {"float": 9.0}, ["0", "100", "300", "400"]),
        ({0.5: 2.0}, {"float": 2.0}, ["2", "3"]),
    ],
)
def test_the_axis_holds_all_values_in_few_steps(
    sparse: dict[float, float], dense: dict[str, float], shown: list[str]
) -> None:
    found = texts(sparsity_plot.svg("W8A8SC", sparse, dense, "unit"))
    assert set(shown) <= set(found)
    assert len(found) < 25
    assert {"W8A8SC", "float", "unit", "% zeros"} <= set(found)
