# SPDX-License-Identifier: Apache-2.0
"""Parameters from a Hugging Face safetensors folder, by memory mapping.

Weights whose dtype is the model's stay in the page cache and are shared between processes; only a
dtype conversion makes a copy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vllm_mindspore import bridge
from vllm_mindspore.model_executor.model_loader import checkpoint_files
from vllm_mindspore.model_executor.model_loader.checkpoint_files import CheckpointFiles
from vllm_mindspore.model_executor.model_loader.mapped_file import TORCH_DTYPES, open_files
from vllm_mindspore.model_executor.model_loader.shards import Division
from vllm_mindspore.model_executor.model_loader.source import Problems

if TYPE_CHECKING:
    from mindspore import Parameter

_ADVICE = "Check that config.json and the safetensors files belong to the same model."
_ADVICE_FINITE = (
    "Such weights make every answer garbage: download the checkpoint again; if the dtypes differ, "
    "its values may be too large for --dtype: use the stored one."
)
_FLOATS = (torch.bfloat16, torch.float16, torch.float32)
_STORED_AS = {dtype: name for name, dtype in TORCH_DTYPES.items()}
# A config.json with a billion layers, or as large a vocabulary, is not followed to its end.
_MAX_PROBLEMS = 1000
_MAX_UNSET_BYTES = 1 << 30
_COUNTED_AT_ONCE = 1 << 24  # elements


class SafetensorsSource:
    """Parameters memory-mapped from a folder of safetensors files."""

    def __init__(
        self,
        folder: Path,
        dtype: torch.dtype,
        unused: Sequence[str] = (),
        shards: Division | None = None,
        files: CheckpointFiles | None = None,
        writer: str = "",
    ) -> None:
        """Opens the headers. `unused` lists name suffixes of tensors that a checkpoint may have
        and the model does not need (precomputed buffers). `shards`: the folder holds the whole
        model, of which shapes asked for are one rank's; without it they are those of the files.
        `files`: those of the folder to read, where they are not all. `writer`: the tool that
        quantized them.

        Raises ValueError naming the file for a folder without weights or a broken file.
        """
        self.dtype = dtype
        self.num_bytes = 0
        self._folder = folder
        self._unused = tuple(unused)
        self._shards = shards
        self._problems = Problems(f"checkpoint {folder}")
        made = (
            f" {writer} made this checkpoint: copy its folder again as a whole, or quantize again."
        )
        self._advice = _ADVICE + (made if writer else "")
        self._files = open_files(files or checkpoint_files.select(folder))
        self._taken: dict[str, torch.Tensor] = {}
        # A weight that two graphs read is one Parameter, of which MindSpore has one copy at most.
        self._parameters: dict[str, Parameter] = {}
        self._bits: dict[str, Parameter] = {}
        self._released: set[str] = set()
        self._unset_bytes = 0

    def has(self, name: str) -> bool:
        """Whether the folder holds a tensor `name`."""
        return name in self._files

    def take(self, name: str, shape: Sequence[int]) -> Parameter:
        """The tensor `name` of exactly `shape`, in the source's dtype. A tensor that is missing
        or different is noted for `finish` and is replaced by unset memory until then."""
        if name not in self._parameters:
            self._parameters[name] = bridge.parameter(name, self._tensor(name, tuple(shape)))
        return self._parameters[name]

    def take_bits(self, name: str, shape: Sequence[int]) -> Parameter:
        """The same; bfloat16 stays mapped."""
        if name not in self._bits:
            self._bits[name] = bridge.bits_parameter(name, self._tensor(name, tuple(shape)))
        return self._bits[name]

    def take_merged(self, names: Sequence[str], shapes: Sequence[Sequence[int]]) -> Parameter:
        """The tensors concatenated along their first axis, copied."""
        parts = [self._tensor(n, tuple(s)) for n, s in zip(names, shapes, strict=True)]
        return bridge.parameter("+".join(names), torch.cat(parts))

    def stored(
        self, name: str, shapes: Sequence[Sequence[int]], dtypes: Sequence[torch.dtype]
    ) -> torch.Tensor:
        """The tensor `name` as it is stored, in one of `shapes` and one of `dtypes`; replaced by
        zeros like the first of both, and noted, if it is missing or different."""
        if name not in self._taken:
            self._taken[name] = self._read(name, [tuple(shape) for shape in shapes], dtypes)
            self.num_bytes += self._taken[name].nbytes
        return self._taken[name]

    def release(self, name: str) -> None:
        """Gives back the pages of a tensor that was copied."""
        if name in self._files:
            self._released.add(name)
            self._files[name].release([name])

    def note(self, problem: str) -> None:
        """Adds a problem to what `finish` reports."""
        self._problems.add(problem)
        if len(self._problems) >= _MAX_PROBLEMS:
            self._problems.raise_if_any(self._advice)

    def place(self, name: str) -> str:
        """Tensor and file, for messages."""
        file = self._files.get(name)
        return f"tensor {name}" if file is None else f"tensor {name} in {file.file.name}"

    def finish(self) -> None:
        """Raises ValueError naming every missing, extra, misshaped or not finite tensor, or a file
        that changed meanwhile. Reads every float once: 15 GB/s from the page cache."""
        for name in sorted(self._files.keys() - self._taken.keys()):
            if not name.endswith(self._unused):
                place = f"{name} in {self._files[name].file.name}"
                self._problems.add(f"extra tensor {place}: the model has no such weight")
        self._problems.raise_if_any(self._advice)
        self._check_values()
        for file in set(self._files.values()):
            file.check_unchanged()
            file.release(name for name in self._released if self._files[name] is file)

    def _check_values(self) -> None:
        problems = Problems(f"checkpoint {self._folder}", "has weights that are not finite")
        for name, tensor in self._taken.items():
            if tensor.dtype.is_floating_point and not _is_finite(tensor):
                file = self._files[name]
                problems.add(
                    f"tensor {name} in {file.file.name}: expected finite numbers, found "
                    f"{_count_not_finite(tensor)} NaN or Inf among {tensor.numel()} (stored as "
                    f"{file.header[name].dtype}, used as {self.dtype})"
                )
        problems.raise_if_any(_ADVICE_FINITE)

    def _tensor(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if name not in self._taken:
            self._taken[name] = self._read(name, [shape], _FLOATS).to(self.dtype)
            self.num_bytes += self._taken[name].nbytes
        return self._taken[name]

    def _read(
        self, name: str, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[torch.dtype]
    ) -> torch.Tensor:
        stored = shapes if self._shards is None else self._shards.whole_shapes(name, shapes)
        problem = self._problem(name, stored, [_STORED_AS[dtype] for dtype in dtypes])
        if not problem:
            whole = self._files[name].tensor(name)
            return whole if self._shards is None else self._shards.part(name, whole)
        self.note(problem)
        return self._in_place_of_missing(shapes[0], dtypes[0])

    def _in_place_of_missing(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Zeros, of which only the pages that are read take memory; too much ends the load here."""
        self._unset_bytes += math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or self._unset_bytes > _MAX_UNSET_BYTES:
            self._problems.raise_if_any(self._advice)
        return torch.zeros(shape, dtype=dtype)

    def _problem(self, name: str, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str]) -> str:
        """What is wrong with tensor `name`, or the empty string."""
        expected = " or ".join(str(list(shape)) for shape in shapes)
        if name not in self._files:
            return f"missing tensor {name}: expected shape {expected}"
        file = self._files[name]
        info = file.header[name]
        place = self.place(name)
        if info.dtype not in dtypes:
            return f"{place}: expected dtype {'/'.join(dtypes)}, found {info.dtype}"
        if info.shape not in shapes:
            return f"{place}: expected shape {expected}, found {list(info.shape)}"
        return ""


def _is_finite(tensor: torch.Tensor) -> bool:
    # One pass without a temporary, NaN included: 30 times as fast as torch.isfinite.
    return not tensor.numel() or all(torch.isfinite(end) for end in torch.aminmax(tensor))


def _count_not_finite(tensor: torch.Tensor) -> int:
    parts = torch.split(tensor.flatten(), _COUNTED_AT_ONCE)
    return sum(int((~torch.isfinite(part)).sum()) for part in parts)
