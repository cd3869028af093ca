# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding (https://arxiv.org/abs/2104.09864): the tables of cos and sin.

The rotation itself happens in the attention layers; the rope types and the names of their values
are those of config.json. Imports no MindSpore, so the front end may check a configuration with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RotaryConfig:
    """How positions turn query and key vectors; checked when it is made.

    Raises ValueError naming the rope type and the value that is missing, unknown or impossible.
    """

    rotary_dim: int
    """Leading elements of each head that are rotated."""
    theta: float
    rope_type: str
    parameters: Mapping[str, Any]
    """The scaling values of `rope_type`, named as in config.json."""
    trained_positions: int
    """max_position_embeddings of config.json."""
    interleaved: bool = False
    """Whether elements 2i and 2i + 1 turn together, not i and i + rotary_dim / 2."""

    def __post_init__(self) -> None:
        if self.rope_type not in ROPE_TYPES:
            supported = ", ".join(ROPE_TYPES)
            raise ValueError(
                f"config.json: rope type {self.rope_type!r} is not supported; "
                f"supported: {supported}"
            )
        smallest = 4 if self.rope_type == "dynamic" else 2
        if self.rotary_dim < smallest or self.rotary_dim % 2:
            raise ValueError(
                f"config.json: {self.rotary_dim} elements of each head are rotated; rope type "
                f"{self.rope_type!r} expects an even number of at least {smallest}"
            )
        if not self.theta > 1:
            raise ValueError(f"config.json: rope_theta={self.theta!r} must be greater than 1")
        self._check_names(ROPE_TYPES[self.rope_type])
        for name in self.parameters:
            self._check_value(name)
        if self.rope_type == "llama3" and self["low_freq_factor"] >= self["high_freq_factor"]:
            raise ValueError(
                f"config.json: low_freq_factor={self['low_freq_factor']} must be smaller than "
                f"high_freq_factor={self['high_freq_factor']}"
            )

    def __getitem__(self, name: str) -> float:
        """A scaling value that is required or has a default."""
        if name == "original_max_position_embeddings":
            return float(self.parameters.get(name, self.trained_positions))
        return float(self.parameters.get(name, _DEFAULTS.get(name, math.nan)))

    def _check_names(self, kind: RopeType) -> None:
        missing = [name for name in kind.required if name not in self.parameters]
        if missing:
            raise ValueError(
                f"config.json: rope type {self.rope_type!r} lacks {', '.join(missing)}"
            )
        known = (*kind.required, *kind.optional)
        unknown = [name for name in self.parameters if name not in known]
        if unknown:
            raise ValueError(
                f"config.json: rope type {self.rope_type!r} with {unknown[0]}="
                f"{self.parameters[unknown[0]]!r} is not supported; it takes "
                f"{', '.join(known) or 'no further values'}"
            )

    def _check_value(self, name: str) -> None:
        value = self.parameters[name]
        if name == "truncate":
            fits, expected = isinstance(value, bool), "true or false"
        else:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            fits, expected = number and 0 < value < math.inf, "a positive number"
        if not fits:
            raise ValueError(f"config.json: rope value {name}={value!r} must be {expected}")


def rotary_tables(config: RotaryConfig, max_positions: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of position * frequency times the attention factor, fp32
    [max_positions, rotary_dim].

    Columns that turn together hold the same frequency: 2i and 2i + 1 if interleaved, else i and
    i + rotary_dim / 2. `max_positions` is the longest sequence that will be served.
    """
    frequencies = inverse_frequencies(config, max_positions)
    angles = np.outer(np.arange(max_positions, dtype=np.float64), frequencies)
    if config.interleaved:
        angles = np.repeat(angles, 2, axis=-1)
    else:
        angles = np.concatenate([angles, angles], axis=-1)
    factor = attention_factor(config)
    return (factor * np.cos(angles)).astype(np.float32), (factor * np.sin(angles)).astype(
        np.float32
    )


def inverse_frequencies(config: RotaryConfig, max_positions: int) -> np.ndarray:
    """The angle per position of each rotated pair, fp64 [rotary_dim / 2]."""
    return ROPE_TYPES[config.rope_type].frequencies(config, max_positions)


def attention_factor(config: RotaryConfig) -> float:
    """What cos and sin are multiplied with: 1 but for yarn (https://arxiv.org/abs/2309.00071,
    equation 22, or the quotient of two such terms, or a value that config.json states)."""
    if config.rope_type != "yarn":
        return 1.0
    if "attention_factor" in config.parameters:
        return config["attention_factor"]
    factor = config["factor"]
    if "mscale" in config.parameters and "mscale_all_dim" in config.parameters:
        return _magnitude(factor, config["mscale"]) / _magnitude(factor, config["mscale_all_dim"])
    return _magnitude(factor, 1.0)


def _magnitude(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _plain(rotary_dim: int, theta: float) -> np.ndarray:
    exponents = np.arange(0, rotary_dim, 2, dtype=np.float64) / rotary_dim
    frequencies: np.ndarray = theta**-exponents
    return frequencies


def _default(config: RotaryConfig, max_positions: int) -> np.ndarray:
    return _plain(config.rotary_dim, config.theta)


def _linear(config: RotaryConfig, max_positions: int) -> np.ndarray:
    return _plain(config.rotary_dim, config.theta) / config["factor"]


def _dynamic(config: RotaryConfig, max_positions: int) -> np.ndarray:
    """A larger base for sequences beyond the trained length. It would change with every token of
    such a sequence, under keys that are cached already; so one base serves all sequences: that of
    the longest. Up to the trained length this is the default type, exactly."""
    factor, dim = config["factor"], config.rotary_dim
    stretch = factor * max(max_positions, config.trained_positions) / config.trained_positions
    base = config.theta * (stretch - (factor - 1)) ** (dim / (dim - 2))
    return _plain(dim, base)


def _llama3(config: RotaryConfig, max_positions: int) -> np.ndarray:
    """Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, with a smooth
    passage between the two."""
    frequencies = _plain(config.rotary_dim, config.theta)
    low, high = config["low_freq_factor"], config["high_freq_factor"]
    wavelengths = 2 * math.pi / frequencies
    turns = config["original_max_position_embeddings"] / wavelengths
    keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
    stretched: np.ndarray = keep * frequencies + (1 - keep) * frequencies / config["factor"]
    return stretched


def _yarn(config: RotaryConfig, max_positions: int) -> np.ndarray:
    """Pairs that turn often within the original length are kept, those that turn less than once
    are stretched by `factor`, with a linear passage between (section 3.2 of the paper)."""
    frequencies = _plain(config.rotary_dim, config.theta)
    low, high = (_pair_with_turns(config, config[name]) for name in ("beta_fast", "beta_slow"))
    if config.parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, config.rotary_dim - 1)
    width = high - low or 1e-3
    stretched = np.clip((np.arange(config.rotary_dim // 2) - low) / width, 0.0, 1.0)
    mixed: np.ndarray = frequencies * (1 - stretched) + frequencies / config["factor"] * stretched
    return mixed


def _pair_with_turns(config: RotaryConfig, turns: float) -> float:
    """Index of the pair that turns this often within the original length, as a real number."""
    per_turn = config["original_max_position_embeddings"] / (turns * 2 * math.pi)
    return config.rotary_dim * math.log(per_turn) / (2 * math.log(config.theta))


@dataclass(frozen=True)
class RopeType:
    """One value of `rope_type`."""

    frequencies: Callable[[RotaryConfig, int], np.ndarray]
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


_DEFAULTS = {"beta_fast": 32.0, "beta_slow": 1.0}
_ORIGINAL = "original_max_position_embeddings"
ROPE_TYPES: dict[str, RopeType] = {
    "default": RopeType(_default),
    "linear": RopeType(_linear, ("factor",)),
    "dynamic": RopeType(_dynamic, ("factor",)),
    "llama3": RopeType(
        _llama3, ("factor", "low_freq_factor", "high_freq_factor"), optional=(_ORIGINAL,)
    ),
    "yarn": RopeType(
        _yarn,
        ("factor",),
        optional=(
            *(_ORIGINAL, "attention_factor", "beta_fast", "beta_slow"),
            *("mscale", "mscale_all_dim", "truncate"),
        ),
    ),
}
"""What `rope_type` may be, with the values that each takes."""
