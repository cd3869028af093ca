# SPDX-License-Identifier: Apache-2.0
"""The data of `quantization_report.json`: what was quantized, how, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FORMAT = 1

ACCURACY, PERPLEXITY = "accuracy", "perplexity"
W8A8, BY_ZEROS = "w8a8", "by_zeros"
Evaluation = Mapping[str, Mapping[str, Any] | None]
"""Name of a measure -> {"float": value, "quantized": value}; None where it was not measured. With
--compare also {"w8a8": value, "by_zeros": {"0.3": value, ...}}: other checkpoints of the model."""

HOW = {ACCURACY: "--evaluate CEVAL_DIR", PERPLEXITY: "--perplexity FILE"}
"""Name of a measure -> the option of `quantize` that asks for it."""

NOT_MEASURED: Evaluation = dict.fromkeys(HOW)


@dataclass(frozen=True)
class Spread:
    """Least, middle and largest of some scales."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Spread:
        """Of any number of values above none."""
        numbers = values.astype(np.float64)
        return cls(float(numbers.min()), float(np.median(numbers)), float(numbers.max()))


@dataclass(frozen=True)
class LinearReport:
    """One quantized linear layer.

    SQNR is in dB, of the weight (smoothed, if it is) and of the output for rows of the calibration
    data, activations quantized included; None where nothing was lost. `smoothing` are the factors
    that its input was divided by. `alpha` is None where nothing was smoothed. `zeros` is the share
    of weight codes that are zero, of layers whose weights were made so; errors are to the weight
    before.
    """

    name: str
    type: str
    shape: Sequence[int]
    bytes_before: int
    bytes_after: int
    weight_sqnr_db: float | None
    output_sqnr_db: float | None
    weight_scale: Spread
    input_scale: float | None
    input_offset: int | None
    input_range_widened: bool
    outlier_suppression: str
    alpha: float | None
    smoothing: Spread
    zeros: float | None


@dataclass(frozen=True)
class CacheReport:
    """Keys or values of one layer in an int8 cache, by the name of their projection: the scales of
    their channels, and signal to noise in dB for rows of the calibration data; None where nothing
    was lost."""

    name: str
    scale: Spread
    sqnr_db: float | None


@dataclass(frozen=True)
class Origin:
    """What the checkpoint was made from and with."""

    version: str
    writer: str
    options: Mapping[str, Any]
    calibration: Mapping[str, Any]


@dataclass(frozen=True)
class Sizes:
    """Bytes of all tensors."""

    bytes_before: int
    bytes_after: int


def compression(ranks: int, layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What compressing for so many ranks gave: `layers` have rank, name, shape, zeros, bytes (of
    weight and index) and ratio (to int8 weights)."""
    weights = sum(layer["shape"][0] * layer["shape"][1] for layer in layers)
    stored = sum(layer["bytes"] for layer in layers)
    return {"ranks": ranks, "ratio": stored / weights, "layers": list(layers)}


def compressed_for(found: Mapping[str, Any]) -> int | None:
    """Ranks that the checkpoint of a report was compressed for; None if it was not."""
    ranks: int | None = found["compression"].get("ranks")
    return ranks


def content(
    origin: Origin,
    linears: Sequence[Mapping[str, Any]],
    sizes: Sizes,
    cache: Sequence[Mapping[str, Any]] = (),
    evaluation: Evaluation = NOT_MEASURED,
) -> dict[str, Any]:
    """The JSON object, with entries of LinearReport and CacheReport. `compression` is filled for
    compressed checkpoints."""
    return {
        "format": FORMAT,
        **asdict(origin),
        "sizes": asdict(sizes),
        "notes": _notes(linears),
        "linears": list(linears),
        "compression": {},
        "kv_cache": list(cache),
        "evaluation": dict(evaluation),
    }


def by_zeros(values: Mapping[str, Any]) -> dict[float, float]:
    """Share of zeros -> value, of a measure; empty without --compare."""
    return {float(share): value for share, value in values.get(BY_ZEROS, {}).items()}


def measured(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Measure, float and quantized, as text."""
    found = []
    for name, values in evaluation.items():
        if values is None:
            found.append((name, "not measured", f"quantize {HOW[name]} does"))
        else:
            exact, made = (_as_text(name, values[which]) for which in ("float", "quantized"))
            found.append((name, exact, made))
    return found


def compared(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """Which model, and what each measure that was made found of it, as text: float, W8A8, then by
    share of zeros. Empty without --compare."""
    asked = {name: values for name, values in evaluation.items() if values and BY_ZEROS in values}
    if not asked:
        return []
    rows = [
        (which, *(_as_text(name, values[which]) for name, values in asked.items()))
        for which in ("float", W8A8)
    ]
    first = next(iter(asked.values()))
    for share in first[BY_ZEROS]:
        shown = (_as_text(name, values[BY_ZEROS][share]) for name, values in asked.items())
        rows.append((f"{float(share):.0%} zeros", *shown))
    return [("", *asked), *rows]


def _as_text(measure: str, value: float) -> str:
    return f"{100 * value:.2f} %" if measure == ACCURACY else f"{value:.4f}"


def _notes(linears: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{entry['name']}: its input has one sign; the range was widened to hold zero, since int8 "
        "does not hold the zero point otherwise"
        for entry in linears
        if entry["input_range_widened"]
    ]
