# SPDX-License-Identifier: Apache-2.0
"""Writes safetensors files one tensor at a time, so that no file has to fit in memory.

Format: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from vllm_mindspore.model_executor.model_loader.mapped_file import TORCH_DTYPES

SPLIT_BYTES = 4 << 30
_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
_ALIGNMENT = 8
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class Entry:
    """A tensor to be written; `read` gives it when its turn comes."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], torch.Tensor]

    @property
    def num_bytes(self) -> int:
        """Of its values."""
        return int(torch.Size(self.shape).numel()) * self.dtype.itemsize

    @classmethod
    def of(cls, name: str, tensor: torch.Tensor) -> Entry:
        """Of a tensor that is in memory or mapped."""
        return cls(name, tensor.dtype, tuple(tensor.shape), lambda: tensor)


def split(entries: Sequence[Entry], limit: int = SPLIT_BYTES) -> list[list[Entry]]:
    """Entries in order, in parts of at most `limit` bytes, or one entry."""
    parts: list[list[Entry]] = []
    room = 0
    for entry in entries:
        if not parts or entry.num_bytes > room:
            parts.append([])
            room = limit
        parts[-1].append(entry)
        room -= entry.num_bytes
    return parts


def write(file: Path, entries: Sequence[Entry], metadata: Mapping[str, str]) -> None:
    """One file, complete and on disk when it has its name. Equal entries give equal bytes."""
    ordered = sorted(entries, key=lambda entry: (-entry.dtype.itemsize, entry.name))
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for entry in ordered:
        end = offset + entry.num_bytes
        header[entry.name] = {
            "dtype": _NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    part = file.with_name(f"{file.name}.part")
    with part.open("wb") as stream:
        stream.write(len(text).to_bytes(_LENGTH_BYTES, "little"))
        stream.write(text)
        for entry in ordered:
            stream.write(_bytes(entry))
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)


def write_json(file: Path, content: Mapping[str, object]) -> None:
    """A JSON file, complete and on disk when it has its name."""
    part = file.with_name(f"{file.name}.part")
    with part.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)


def _bytes(entry: Entry) -> memoryview:
    tensor = entry.read().contiguous()
    assert (tensor.dtype, tuple(tensor.shape)) == (entry.dtype, entry.shape), entry.name
    values: npt.NDArray[np.uint8] = tensor.reshape(-1).view(torch.uint8).numpy()
    return values.data
