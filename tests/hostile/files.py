# SPDX-License-Identifier: Apache-2.0
"""Writes safetensors files byte by byte, right or wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

SHAPES: dict[str, tuple[int, ...]] = {"a.weight": (3, 4), "b.weight": (2, 4)}
"""The tensors of a right file, all float32."""


def entry(begin: int, shape: tuple[int, ...], **changes: Any) -> dict[str, Any]:
    """The header entry of a float32 tensor that begins at byte `begin` of the data."""
    end = begin + 4 * int(np.prod(shape))
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]} | changes


def header(**changes: Any) -> dict[str, Any]:
    """The right header, with the values of some entries replaced: `b={"dtype": "I8"}`."""
    right = {"a.weight": entry(0, (3, 4)), "b.weight": entry(48, (2, 4))}
    return {name: value | changes.get(name[0], {}) for name, value in right.items()}


def safetensors(head: Any, data: bytes = bytes(80), length: int | None = None) -> bytes:
    """A file: `head` is the header as an object, or its very bytes."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def right_file() -> bytes:
    """A file every reader accepts: a.weight is 0 to 11, b.weight 12 to 19."""
    return safetensors(header(), np.arange(20, dtype="<f4").tobytes())


def one_tensor(name: str) -> bytes:
    """A file with one float32 tensor [2]."""
    return safetensors({name: entry(0, (2,))}, bytes(8))


def write_index(folder: Path, weight_map: Any) -> None:
    """An index of the given weight_map."""
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
