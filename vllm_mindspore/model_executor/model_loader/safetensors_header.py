# SPDX-License-Identifier: Apache-2.0
"""Reads and checks the header of one safetensors file; imports neither torch nor MindSpore.

Format: https://huggingface.co/docs/safetensors. Eight bytes (little endian) give the length of a
JSON object; it gives dtype, shape and place of each tensor; the tensors follow without gaps.
"""

from __future__ import annotations

import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from vllm_mindspore.model_executor.model_loader import strict_json

DTYPE_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
}
"""Bits of one element, by the format's name of its dtype."""

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_LENGTH_BYTES = 8
_MAX_DIMENSIONS = 64  # what numpy holds
_MAX_COUNT = (1 << 63) - 1
_MAX_NAME = 1024
_METADATA = "__metadata__"
_AGAIN = "the file is damaged or incomplete, download it again"

# How other files that get the ending begin, and what to do about each.
_OTHER_FORMATS = (
    (
        b"PK\x03\x04",
        "a torch pickle, which can run code when read: convert it to safetensors",
    ),
    (b"\x80", "a Python pickle, which can run code when read: convert it to safetensors"),
    (b"version https://git-lfs", "a git-lfs pointer: fetch the file itself with `git lfs pull`"),
    (b"GGUF", "a GGUF file: use the checkpoint it was made from"),
    (b"<", "a web page or XML: download the file itself"),
)


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies in its file, and as what."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of the file."""
    num_bytes: int


def open_regular(file: Path) -> BinaryIO:
    """The file, opened for reading; symbolic links are followed (the Hugging Face cache is made
    of them). Raises ValueError for what is missing, unreadable or no regular file."""
    try:
        # A named pipe would block until somebody writes to it.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ValueError(
            f"{file} does not exist{_dangling(file)}; the checkpoint is incomplete, download it "
            "again"
        ) from error
    except OSError as error:
        raise ValueError(f"{file} cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{file}: expected a file, found a folder, device or pipe")
    return os.fdopen(descriptor, "rb")


def read_header(stream: BinaryIO, file: Path) -> dict[str, TensorInfo]:
    """The tensors of an open safetensors file, by name.

    Checked: every byte of the file belongs to the header or to exactly one tensor, and each
    tensor has as many bytes as its dtype and shape need. Raises ValueError naming file and tensor.
    """
    size = os.fstat(stream.fileno()).st_size
    start = stream.read(_LENGTH_BYTES)
    length = int.from_bytes(start, "little")
    if len(start) < _LENGTH_BYTES or length > min(size - _LENGTH_BYTES, MAX_HEADER_BYTES):
        raise _invalid(file, _no_header(start + stream.read(32), length, size))
    header = strict_json.parse_object(
        stream.read(length), f"{file} is not a valid safetensors file: header"
    )
    _check_metadata(header.pop(_METADATA, {}), file)
    data_start = _LENGTH_BYTES + length
    tensors = {name: _tensor(name, entry, data_start, file) for name, entry in header.items()}
    _check_layout(tensors, data_start, size, file)
    return tensors


def _dangling(file: Path) -> str:
    return f" (it links to {os.readlink(file)}, which is missing)" if file.is_symlink() else ""


def _invalid(file: Path, why: str) -> ValueError:
    return ValueError(f"{file} is not a valid safetensors file: {why}")


def _no_header(start: bytes, length: int, size: int) -> str:
    """Why a file of `size` bytes, beginning with `start`, cannot have a header of `length`."""
    if size < _LENGTH_BYTES:
        return f"expected at least {_LENGTH_BYTES} bytes, found {size}; {_AGAIN}"
    if length > MAX_HEADER_BYTES:
        others = (found for magic, found in _OTHER_FORMATS if start.startswith(magic))
        limit = f"expected a header of at most {MAX_HEADER_BYTES} bytes, found {length}"
        return next((f"it is {found}" for found in others), limit)
    return (
        f"expected a header of {length} bytes, found a file with {size - _LENGTH_BYTES} bytes "
        f"after the length; {_AGAIN}"
    )


def _check_metadata(metadata: Any, file: Path) -> None:
    texts = [*metadata, *metadata.values()] if isinstance(metadata, dict) else [None]
    if not all(isinstance(text, str) and _is_unicode(text) for text in texts):
        raise _invalid(file, f"expected {_METADATA} to be an object of strings")


def _is_unicode(text: str) -> bool:
    """Whether there is no half of a surrogate pair, which JSON can spell and UTF-8 cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _tensor(name: str, entry: Any, data_start: int, file: Path) -> TensorInfo:
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
        raise _invalid(
            file, f"expected printable names of 1 to {_MAX_NAME} characters, found {name[:80]!r}"
        )
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        found = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        raise _invalid(
            file, f"tensor {name}: expected dtype, shape, data_offsets, found {_brief(found)}"
        )
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _invalid(
            file, f"tensor {name}: expected a dtype of the format, found {_brief(dtype)}"
        )
    if not _are_counts(shape) or len(shape) > _MAX_DIMENSIONS:
        raise _invalid(
            file,
            f"tensor {name}: expected a shape of at most {_MAX_DIMENSIONS} sizes from 0 to "
            f"{_MAX_COUNT}, found {_brief(shape)}",
        )
    if not _are_counts(offsets) or len(offsets) != 2:
        raise _invalid(
            file,
            f"tensor {name}: expected data_offsets [begin, end] from 0 to {_MAX_COUNT}, found "
            f"{_brief(offsets)}",
        )
    begin, end = offsets
    needed, odd_bits = divmod(math.prod(shape) * DTYPE_BITS[dtype], 8)
    if odd_bits or end - begin != needed:
        raise _invalid(
            file,
            f"tensor {name}: expected {_brief(needed)} bytes for {dtype} {_brief(shape)}, found "
            f"{end - begin} (data_offsets {_brief(offsets)})",
        )
    return TensorInfo(dtype, tuple(shape), data_start + begin, needed)


def _are_counts(value: Any) -> bool:
    """Whether it is a list of integers of 64 bits from 0."""
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item <= _MAX_COUNT for item in value
    )


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _check_layout(tensors: dict[str, TensorInfo], data_start: int, size: int, file: Path) -> None:
    """Every byte after the header belongs to exactly one tensor."""
    position, before = data_start, "the header"
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].num_bytes)):
        end = info.offset + info.num_bytes
        if end > size:
            raise _invalid(
                file,
                f"tensor {name}: expected data up to byte {end}, found a file of {size} bytes; "
                f"{_AGAIN}",
            )
        if info.offset != position:
            fault = "a gap" if info.offset > position else "an overlap"
            raise _invalid(
                file,
                f"tensor {name}: expected to begin at byte {position}, right after {before}; found "
                f"{fault} of {abs(info.offset - position)} bytes",
            )
        position, before = end, f"tensor {name}"
    if position != size:
        raise _invalid(
            file, f"expected the file to end at byte {position}, after {before}; found {size} bytes"
        )
