# SPDX-License-Identifier: Apache-2.0
"""The weight files of folders that are stored rank by rank, and what their headers must say.

Imports no MindSpore: the front end checks such a folder before a worker starts.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from vllm.logger import init_logger

from vllm_mindspore.device.soc import Device
from vllm_mindspore.model_executor.model_loader import checkpoint_files
from vllm_mindspore.model_executor.model_loader.checkpoint_files import CheckpointFiles
from vllm_mindspore.model_executor.model_loader.safetensors_header import (
    TensorInfo,
    open_regular,
    read_header,
)
from vllm_mindspore.quantization import sparse_codec, sparse_support
from vllm_mindspore.quantization.description import SPARSE
from vllm_mindspore.quantization.sparse_description import (
    Layout,
    RankBlock,
    SparseDescription,
)

logger = init_logger(f"vllm.{__name__}")

Sizes = Mapping[str, tuple[int, int]]
"""Fused module -> its K and N on one rank."""

PARTS = "part*-of-*"
_PART = re.compile(r"part(\d+)-of-(\d+)")
_FOLDER = re.compile(r"rank_\d+")
_FLAT = re.compile(r"model-rank-(0|[1-9]\d{0,5})-part-(\d+)\.safetensors")
# NPU coding: the length of a tile in the low bits of its entry, in units of bytes.
_NPU_LENGTH, _NPU_UNIT = (1 << 13) - 1, 128

_CONVERTED = ("F32", "BF16")
_SCALES = (".deq_scale", ".weight_scale", ".weight_offset")


def select(found: SparseDescription, rank: int) -> CheckpointFiles:
    """The files of one rank.

    Raises:
        ValueError: there are none.
    """
    folder = found.file.parent
    if found.layout is Layout.FOLDERS:
        return checkpoint_files.select(folder / f"rank_{rank}")
    names = sorted(name for name, index in _flat_files(folder) if index == rank)
    return CheckpointFiles(folder, tuple(names), None)


def with_ranks(found: SparseDescription) -> SparseDescription:
    """The description, its ranks checked against the folder: those of flat ones are the files'.

    Raises:
        ValueError: ranks without files, files without a rank, or what should be a folder is none.
    """
    folder = found.file.parent
    if found.layout is Layout.FLAT:
        ranks = sorted({rank for _, rank in _flat_files(folder)})
        if not ranks or ranks != list(range(len(ranks))):
            raise ValueError(
                f"{folder}: {found.file.name} is that of compressed weights: expected files "
                "model-rank-0-part-0.safetensors and so on for every rank, or rank_N folders and a "
                f"block for each; found ranks {ranks}"
            )
        return replace(found, blocks=tuple(_sized(found, rank) for rank in ranks))
    expected = {f"rank_{rank}" for rank in range(len(found.blocks))}
    names = {file.name for file in folder.iterdir() if _FOLDER.fullmatch(file.name)}
    if names != expected:
        raise ValueError(
            f"{folder}: {found.file.name} has blocks for {', '.join(sorted(expected))}; found the "
            f"folders {', '.join(sorted(names)) or 'of no rank'}: the checkpoint is incomplete, or "
            "two are mixed"
        )
    for name in sorted(names):
        if not (folder / name).is_dir():
            raise ValueError(
                f"{folder / name}: expected the folder of a rank's weights, found a file or a link "
                "that leads to no folder"
            )
    return found


def _sized(found: SparseDescription, rank: int) -> RankBlock:
    """The block of a flat description, with the sizes that the headers of one rank say where it
    states none."""
    tensors, block = headers(found, rank), found.blocks[0]
    sizes = dict(block.sizes)
    for name, kind in block.types.items():
        module, _, last = name.rpartition(".")
        if last == "weight" and kind == SPARSE and module not in sizes:
            both = (tensors.get(name), tensors.get(f"{module}.index"))
            stream, index = (0 if place is None else place[1].num_bytes for place in both)
            sizes[module] = (stream, index)
    return replace(block, sizes=sizes)


def notices(found: SparseDescription) -> Iterator[str]:
    """What the user should know of a folder that can be loaded, a line each."""
    for rank in range(len(found.blocks)):
        kinds = Counter(
            info.dtype
            for name, (_, info) in headers(found, rank).items()
            if info.dtype in _CONVERTED and not name.endswith(_SCALES)
        )
        for kind, count in kinds.items():
            yield (
                f"rank {rank}: {count} tensors stored as {kind} are converted to F16: compressed "
                "weights (W8A8SC) are computed in float16 alone"
            )


def parts(folder: Path) -> tuple[Path, ...]:
    """The folders of MindIE's layout, in the order of their numbers; empty where there are none.

    Raises:
        ValueError: numbers are missing.
    """
    named = {file: _PART.fullmatch(file.name) for file in folder.glob(PARTS) if file.is_dir()}
    found = sorted((int(match[1]), int(match[2]), file) for file, match in named.items() if match)
    if [(index, count) for index, count, _ in found] != [
        (i, len(found)) for i in range(len(found))
    ]:
        raise ValueError(
            f"{folder}: expected the folders part0-of-N to part(N-1)-of-N, found "
            f"{', '.join(file.name for *_, file in found)}"
        )
    return tuple(file for *_, file in found)


def headers(found: SparseDescription, rank: int) -> dict[str, tuple[Path, TensorInfo]]:
    """Tensor of one rank -> its file and what the header says.

    Raises:
        ValueError: a file is broken, or two hold the same tensor.
    """
    files = select(found, rank)
    read = {}
    for name in files.names:
        with open_regular(files.folder / name) as stream:
            read[name] = read_header(stream, files.folder / name)
    places = files.places(read)
    return {tensor: (files.folder / name, read[name][tensor]) for tensor, name in places.items()}


def check(found: SparseDescription, sizes: Sizes, device: Device | None, *, decode: bool) -> None:
    """Every rank's headers against the description and the model's sizes, and whether the coding
    can be computed on `device` (`sparse_support.check`).

    Raises:
        ValueError: names file and tensor, what was expected and found.
    """
    if found.layout is Layout.PARTS:
        sparse_support.check(found, device, decode=decode)
    for rank in range(len(found.blocks)):
        tensors = headers(found, rank)
        wrong = list(_problems(found, rank, tensors, sizes))
        if wrong:
            shown = "\n  ".join(wrong[:20])
            raise ValueError(
                f"{found.file.parent}: rank {rank} does not fit ({len(wrong)} problems):\n  {shown}"
            )
        if not found.own_codec:
            _warn_of_lengths(found, rank, tensors)
    sparse_support.check(found, device, decode=decode)


def _problems(
    found: SparseDescription,
    rank: int,
    tensors: Mapping[str, tuple[Path, TensorInfo]],
    sizes: Sizes,
) -> Iterator[str]:
    block = found.blocks[rank]
    for name, kind in block.types.items():
        module, _, last = name.rpartition(".")
        if last != "weight" or kind != SPARSE:
            continue
        stream, index = block.sizes.get(module, (None, None))
        yield from _stream_problems(name, tensors, stream)
        yield from _stream_problems(f"{module}.index", tensors, index)
        if module in sizes:
            inner, outer = sizes[module]
            expected = sparse_codec.index_bytes(outer, inner)
            place = tensors.get(f"{module}.index")
            if place is not None and place[1].shape != (expected,):
                yield (
                    f"tensor {module}.index in {place[0]}: expected {expected} bytes, 8 for each "
                    f"tile of {outer} x {inner} weights, found shape {list(place[1].shape)}"
                )


def _stream_problems(
    name: str, tensors: Mapping[str, tuple[Path, TensorInfo]], stated: int | None
) -> Iterator[str]:
    if name not in tensors:
        yield f"missing tensor {name}: the description says it is compressed"
        return
    file, info = tensors[name]
    if info.dtype != "I8" or len(info.shape) != 1:
        yield f"tensor {name} in {file}: expected I8 [bytes], found {info.dtype} {list(info.shape)}"
    elif stated is not None and info.shape != (stated,):
        yield (
            f"tensor {name} in {file}: expected shape [{stated}], which the description says, "
            f"found {list(info.shape)}"
        )


def _warn_of_lengths(
    found: SparseDescription, rank: int, tensors: Mapping[str, tuple[Path, TensorInfo]]
) -> None:
    """The meaning of the entries is known in part, so a sum that differs is no error."""
    for name, (file, info) in tensors.items():
        module, _, last = name.rpartition(".")
        if last != "index" or found.blocks[rank].type_of(module) != SPARSE:
            continue
        with open_regular(file) as stream:
            stream.seek(info.offset)
            entries = np.frombuffer(stream.read(info.num_bytes // 8 * 8), "<u8")
        total = int((entries & _NPU_LENGTH).sum()) * _NPU_UNIT
        size = tensors[f"{module}.weight"][1].num_bytes
        if total != size:
            logger.warning(
                "%s: tensor %s: the lengths in the index add up to %d bytes, the weight has %d",
                *(file, name, total, size),
            )


def _flat_files(folder: Path) -> Sequence[tuple[str, int]]:
    """Name and rank of each file of the flat layout."""
    found = ((name, _FLAT.fullmatch(name)) for name in sorted(os.listdir(folder)))
    return [(name, int(match[1])) for name, match in found if match]
