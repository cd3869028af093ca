# SPDX-License-Identifier: Apache-2.0
"""One safetensors file mapped into memory, its header checked first.

The header and the map belong to one open file: a file that is replaced by rename later (as
downloads do) goes on being read as it was. A file that is truncated in place while it is mapped
ends the process with SIGBUS; only a copy of all weights would prevent that.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vllm_mindspore.model_executor.model_loader import checkpoint_files
from vllm_mindspore.model_executor.model_loader.checkpoint_files import CheckpointFiles
from vllm_mindspore.model_executor.model_loader.safetensors_header import (
    TensorInfo,
    open_regular,
    read_header,
)

TORCH_DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "I8": torch.int8,
    "I32": torch.int32,
    "I64": torch.int64,
}
"""What a tensor may be stored as, by the format's name of its dtype."""


_libc = ctypes.CDLL(None)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


@dataclass(frozen=True)
class _FileState:
    """Differs when a file was written to or replaced."""

    size: int
    mtime_ns: int
    inode: int


class MappedFile:
    """A safetensors file; its tensors stay in the page cache and are shared between processes."""

    def __init__(self, file: Path) -> None:
        """Raises ValueError naming the file when it cannot be opened or its header is wrong."""
        self.file = file
        with open_regular(file) as stream:
            self.header: dict[str, TensorInfo] = read_header(stream, file)
            self._state = _state(os.fstat(stream.fileno()))
            self._bytes = self._map(stream.fileno(), self._state.size)

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor `name` over the mapped memory, in its own dtype (one of TORCH_DTYPES).

        Copied only where the file does not align it to its element size.
        """
        info = self.header[name]
        dtype = TORCH_DTYPES[info.dtype]
        flat = self._bytes[info.offset : info.offset + info.num_bytes]
        aligned = flat if info.offset % dtype.itemsize == 0 else flat.clone()
        return aligned.view(dtype).reshape(info.shape)

    def release(self, names: Iterable[str]) -> None:
        """Gives the pages of these tensors back, for a caller that has copied them: the process no
        longer holds them. Who reads them again has them from the file."""
        base, end, start = self._bytes.data_ptr(), 0, 0
        for info in sorted((self.header[name] for name in names), key=lambda info: info.offset):
            if info.offset > end:
                _give_back(base + start, base + end)
                start = info.offset
            end = info.offset + info.num_bytes
        _give_back(base + start, base + end)

    def check_unchanged(self) -> None:
        """Raises ValueError when the file was written to or replaced since it was opened."""
        try:
            state: _FileState | None = _state(os.stat(self.file))
        except OSError:
            state = None  # gone
        if state != self._state:
            raise ValueError(
                f"{self.file} was changed while it was loaded: expected {self._state}, found "
                f"{state}; let the copy or download finish, then start again"
            )

    def _map(self, descriptor: int, size: int) -> torch.Tensor:
        """The whole file as uint8; a private map, nothing written to it would reach the file."""
        # By the open file, not by name: another file may have the name by now.
        name = f"/proc/self/fd/{descriptor}"
        try:
            storage: Any = torch.UntypedStorage.from_file(name, shared=False, nbytes=size)
        except RuntimeError as error:
            raise ValueError(f"{self.file} cannot be mapped into memory: {error}") from error
        return torch.empty(0, dtype=torch.uint8).set_(storage)


def open_folder(folder: Path) -> dict[str, MappedFile]:
    """Tensor name -> its file. Raises ValueError for broken or contradicting files."""
    return open_files(checkpoint_files.select(folder))


def open_files(selection: CheckpointFiles) -> dict[str, MappedFile]:
    """The same of chosen files."""
    files = {name: MappedFile(selection.folder / name) for name in selection.names}
    places = selection.places({name: file.header for name, file in files.items()})
    return {tensor: files[name] for tensor, name in places.items()}


def _give_back(start: int, end: int) -> None:
    """Whole pages between two addresses: the first and the last may belong to neighbours, too."""
    first, last = -(-start // mmap.PAGESIZE), end // mmap.PAGESIZE
    if last > first:
        size = (last - first) * mmap.PAGESIZE
        _libc.madvise(first * mmap.PAGESIZE, size, mmap.MADV_DONTNEED)


def _state(status: os.stat_result) -> _FileState:
    return _FileState(status.st_size, status.st_mtime_ns, status.st_ino)
