# SPDX-License-Identifier: Apache-2.0
"""The ranges of the scales of a checkpoint: the only tensors that are read, and small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vllm_mindspore.inspection.checkpoint import Checkpoint
from vllm_mindspore.model_executor.model_loader.safetensors_header import (
    TensorInfo,
    open_regular,
)
from vllm_mindspore.quantization import primitives

_SCALES = ("deq_scale", "weight_scale", "input_scale", "smooth_scale", "beta", "kv_cache_scale")
_MOST_BYTES = 1 << 22  # a scale per channel of a vocabulary has fewer
_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}


@dataclass(frozen=True)
class Range:
    """The values of all tensors of one last name.

    Attributes:
        tensors: how many there are.
        least: of the finite values.
        largest: of the finite values.
    """

    tensors: int
    least: float
    largest: float


def ranges_of(checkpoint: Checkpoint) -> dict[str, Range]:
    """Last name of a scale -> its range. Values that are not finite are problems."""
    found: dict[str, list[tuple[float, float]]] = {}
    for file, names in _scales(checkpoint).items():
        values = checkpoint.attempt(lambda f=file, n=names: _read(f, n)) or {}  # type: ignore[misc]
        for name, array in values.items():
            finite = array[np.isfinite(array)]
            if finite.size < array.size:
                checkpoint.problems.append(
                    f"tensor {name} in {file.name}: expected finite numbers, found "
                    f"{array.size - finite.size} NaN or Inf among {array.size}"
                )
            if finite.size:
                limits = (float(finite.min()), float(finite.max()))
                found.setdefault(name.rpartition(".")[2], []).append(limits)
    return {
        last: Range(len(limits), min(low for low, _ in limits), max(high for _, high in limits))
        for last, limits in sorted(found.items())
    }


def _scales(checkpoint: Checkpoint) -> dict[Path, dict[str, TensorInfo]]:
    """File -> its scales."""
    found: dict[Path, dict[str, TensorInfo]] = {}
    for name, info in checkpoint.tensors.items():
        small = info.num_bytes <= _MOST_BYTES and info.dtype in _DTYPES
        if name.rpartition(".")[2] in _SCALES and small:
            found.setdefault(checkpoint.folder / checkpoint.places[name], {})[name] = info
    return found


def _read(file: Path, tensors: Mapping[str, TensorInfo]) -> dict[str, npt.NDArray[np.float32]]:
    found = {}
    with open_regular(file) as stream:
        for name, info in tensors.items():
            stream.seek(info.offset)
            data = stream.read(info.num_bytes)
            if len(data) < info.num_bytes:
                raise ValueError(f"{file}: tensor {name}: the file was truncated meanwhile")
            found[name] = _floats(np.frombuffer(data, _DTYPES[info.dtype]), info.dtype)
    return found


def _floats(stored: npt.NDArray[np.generic], dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    if dtype == "I64":  # the bits of a float32 in the lower half
        return primitives.decode_deq_scale(stored.astype(np.int64))
    return stored.astype(np.float32)
