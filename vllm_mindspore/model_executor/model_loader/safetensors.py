# SPDX-License-Identifier: Apache-2.0
"""Reads Hugging Face safetensors folders by memory mapping.

Format: https://huggingface.co/docs/safetensors. Weights whose dtype is the model's stay in the
page cache and are shared between processes; only a dtype conversion makes a copy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from vllm_mindspore import bridge
from vllm_mindspore.model_executor.model_loader.source import Problems

if TYPE_CHECKING:
    from mindspore import Parameter

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_FLOAT_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
_ADVICE = "Check that config.json and the safetensors files belong to the same model."


class SafetensorsSource:
    """Parameters memory-mapped from a folder of safetensors files."""

    def __init__(self, folder: Path, dtype: torch.dtype, unused: Sequence[str] = ()) -> None:
        """Opens the headers. `unused` lists name suffixes of tensors that a checkpoint may have
        and the model does not need (precomputed buffers).

        Raises ValueError naming the file for a folder without weights or a broken file.
        """
        self.dtype = dtype
        self.num_bytes = 0
        self._folder = folder
        self._unused = tuple(unused)
        self._problems = Problems(f"checkpoint {folder}")
        self._files = open_folder(folder)
        self._taken: dict[str, torch.Tensor] = {}

    def take(self, name: str, shape: Sequence[int]) -> Parameter:
        """The tensor `name` of exactly `shape`, in the source's dtype. A tensor that is missing
        or different is noted for `finish` and is replaced by unset memory until then."""
        return bridge.parameter(name, self._tensor(name, tuple(shape)))

    def take_merged(self, names: Sequence[str], shapes: Sequence[Sequence[int]]) -> Parameter:
        """The tensors concatenated along their first axis, copied."""
        parts = [self._tensor(n, tuple(s)) for n, s in zip(names, shapes, strict=True)]
        return bridge.parameter("+".join(names), torch.cat(parts))

    def finish(self) -> None:
        """Raises ValueError naming every missing, extra or misshaped tensor."""
        for name in sorted(self._files.keys() - self._taken.keys()):
            if not name.endswith(self._unused):
                self._problems.add(f"extra tensor {name}: the model has no such weight")
        self._problems.raise_if_any(_ADVICE)

    def _tensor(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if name not in self._taken:
            self._taken[name] = self._checked(name, shape)
            self.num_bytes += self._taken[name].nbytes
        return self._taken[name]

    def _checked(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        problem = self._problem(name, shape)
        if problem:
            self._problems.add(problem)
            return torch.empty(shape, dtype=self.dtype)
        tensor: torch.Tensor = self._files[name].get_tensor(name)
        return tensor.to(self.dtype)

    def _problem(self, name: str, shape: tuple[int, ...]) -> str:
        """What is wrong with tensor `name`, or the empty string."""
        if name not in self._files:
            return f"missing tensor {name}: expected shape {list(shape)}"
        header = self._files[name].get_slice(name)
        if header.get_dtype() not in _FLOAT_DTYPES:
            expected = "/".join(_FLOAT_DTYPES)
            return f"tensor {name}: expected dtype {expected}, found {header.get_dtype()}"
        if tuple(header.get_shape()) != shape:
            return f"tensor {name}: expected shape {list(shape)}, found {header.get_shape()}"
        return ""


def open_folder(folder: Path) -> dict[str, Any]:
    """Tensor name -> open safetensors file, for the index, the single file or all `*.safetensors`
    of a folder. Raises ValueError for broken files, duplicate names and names the index lacks."""
    index = folder / _INDEX
    listed = _read_index(index) if index.is_file() else None
    names = sorted(set(listed.values())) if listed is not None else _unindexed_files(folder)
    files: dict[str, Any] = {}
    for name in names:
        handle = _open_file(folder / name)
        for key in handle.keys():  # noqa: SIM118 - not a dict
            if key in files:
                raise ValueError(f"{folder / name}: tensor {key} is also in another file")
            files[key] = handle
    if listed is not None:
        _check_index(index, listed, files)
    return files


def _unindexed_files(folder: Path) -> list[str]:
    if (folder / _SINGLE).is_file():
        return [_SINGLE]
    names = sorted(file.name for file in folder.glob("*.safetensors"))
    if not names:
        raise ValueError(
            f"{folder} has no *.safetensors file; convert the checkpoint to safetensors, or use "
            "--load-format dummy to run without weights"
        )
    return names


def _read_index(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{index}: expected JSON with a weight_map, found {error!r}") from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index}: weight_map must be a non-empty object of tensor -> file name")
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            raise ValueError(f"{index}: {tensor}: {name!r} is not a plain file name in the folder")
    return weight_map


def _check_index(index: Path, listed: dict[str, str], files: dict[str, Any]) -> None:
    absent = sorted(listed.keys() - files.keys())
    if absent:
        raise ValueError(f"{index} lists {absent[:5]} ({len(absent)} in all), which no file holds")


def _open_file(file: Path) -> Any:
    if not file.is_file():
        raise ValueError(f"{file} does not exist; the checkpoint is incomplete, download it again")
    try:
        return safe_open(str(file), framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is not a valid safetensors file: {error}") from error
