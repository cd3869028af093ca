# SPDX-License-Identifier: Apache-2.0
"""What zeros cost, as a plot: a measure over the share of zeros, beside models without any."""

from __future__ import annotations

import math
from collections.abc import Mapping

from vllm_mindspore.quantization.ptq import line_plot
from vllm_mindspore.quantization.ptq.line_plot import Axis


def svg(name: str, sparse: Mapping[float, float], dense: Mapping[str, float], unit: str) -> str:
    """The image: a line `name` of share (0 to 1) -> value, and a level one for each name of
    `dense`. `unit` is that of the values."""
    shares = [100 * share for share in sorted(sparse)]
    lines = {name: [(100 * share, value) for share, value in sparse.items()]}
    lines |= {label: [(share, value) for share in shares] for label, value in dense.items()}
    first, last = 10 * math.floor(shares[0] / 10), 10 * math.ceil(shares[-1] / 10)
    x = Axis(first, max(last, first + 10), 10, "% zeros")
    return line_plot.svg(lines, _axis([*sparse.values(), *dense.values()], unit), x)


def _axis(values: list[float], unit: str) -> Axis:
    """Whole steps around all values, at most eleven."""
    span = max(values) - min(values) or 1.0
    step = 10.0 ** math.floor(math.log10(span))
    low = math.floor(min(values) / step) * step
    return Axis(low, (math.floor(max(values) / step) + 1) * step, step, unit)
