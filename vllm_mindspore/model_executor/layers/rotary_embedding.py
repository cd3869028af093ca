# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding (https://arxiv.org/abs/2104.09864): the frequency tables.

The rotation itself happens in the attention layers; the rope types are those that transformers
writes into config.json (`rope_parameters` in version 5, `rope_theta` + `rope_scaling` before).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RotaryConfig:
    """How positions turn query and key vectors."""

    rotary_dim: int
    """Leading elements of each head that are rotated."""
    theta: float
    rope_type: str
    parameters: Mapping[str, Any]
    """The scaling values of `rope_type`, named as in config.json."""


def rotary_tables(config: RotaryConfig, max_positions: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of position * frequency, fp32 [max_positions, rotary_dim].

    Column i and i + rotary_dim/2 hold the same frequency, as rotating halves needs it.
    """
    frequencies = inverse_frequencies(config)
    angles = np.outer(np.arange(max_positions, dtype=np.float64), frequencies)
    angles = np.concatenate([angles, angles], axis=-1)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def inverse_frequencies(config: RotaryConfig) -> np.ndarray:
    """The angle per position of each rotated pair, fp64 [rotary_dim / 2].

    Raises ValueError for a rope type that is not implemented.
    """
    if config.rope_type not in _SCALINGS:
        raise ValueError(
            f"rope type {config.rope_type!r} is not supported; supported: {', '.join(_SCALINGS)}"
        )
    missing = [key for key in _REQUIRED[config.rope_type] if key not in config.parameters]
    if missing:
        raise ValueError(
            f"rope type {config.rope_type!r} lacks {', '.join(missing)} in config.json"
        )
    exponents = np.arange(0, config.rotary_dim, 2, dtype=np.float64) / config.rotary_dim
    return _SCALINGS[config.rope_type](config.theta**-exponents, config.parameters)


def _default(frequencies: np.ndarray, parameters: Mapping[str, Any]) -> np.ndarray:
    return frequencies


def _linear(frequencies: np.ndarray, parameters: Mapping[str, Any]) -> np.ndarray:
    return frequencies / float(parameters["factor"])


def _llama3(frequencies: np.ndarray, parameters: Mapping[str, Any]) -> np.ndarray:
    """Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, with a smooth
    passage between the two."""
    factor = float(parameters["factor"])
    low, high = float(parameters["low_freq_factor"]), float(parameters["high_freq_factor"])
    original = float(parameters["original_max_position_embeddings"])
    wavelengths = 2 * math.pi / frequencies
    keep = np.clip((original / wavelengths - low) / (high - low), 0.0, 1.0)
    stretched: np.ndarray = keep * frequencies + (1 - keep) * frequencies / factor
    return stretched


_REQUIRED: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
}
_SCALINGS: dict[str, Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
}
