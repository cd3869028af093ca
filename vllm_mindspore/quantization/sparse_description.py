# SPDX-License-Identifier: Apache-2.0
"""What a folder of compressed weights (W8A8SC) says of itself: a block of types for each rank.

Imports neither torch nor MindSpore: the front end reads it too.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vllm_mindspore.quantization import sparse_codec
from vllm_mindspore.quantization.description import FLOAT, FUSED, SPARSE, STATIC, TOOLS, one_type
from vllm_mindspore.quantization.sharding import Split, is_added_once, split_of

CODEC, DEVICE = "codec", "device_type"
COMPRESSED = "W8A8SC"
"""The type of compressed layers in flat descriptions."""

DTYPE = "float16"
"""The one of the model's floats."""

ENCODED_DEVICE = "310P"
"""The device whose files hold deq_scale as int64."""

_RANK = re.compile(r"rank_(0|[1-9]\d{0,5})")
CHECKSUM = ".weight.crc32"
"""End of the name of a stream's CRC-32 (that of zlib)."""

_SHAPES = (".weight.shape", ".index.shape")
_MODEL_TYPE = "model_quant_type"
_REMARKS = ("version", "metadata", "optional", "group_size", _MODEL_TYPE)
_TYPES = (SPARSE, STATIC, FLOAT)
_MAX_NAME = 1024  # as in the headers of the weights


class Layout(enum.Enum):
    """How the files of a folder lie."""

    FOLDERS = "rank_N folders"
    FLAT = "model-rank-N-part-M.safetensors files"
    PARTS = "partN-of-M folders"


@dataclass(frozen=True)
class RankBlock:
    """What one rank has.

    Attributes:
        types: tensor -> type, with the names of the files (fused modules).
        sizes: module -> bytes of its stream and of its index, where the description says them.
        checksums: module -> CRC-32 of its stream, where the description says it.
    """

    types: Mapping[str, str]
    sizes: Mapping[str, tuple[int, int]]
    checksums: Mapping[str, int] = field(default_factory=dict)

    def type_of(self, module: str) -> str | None:
        """That of a module of the files; None for one that is not named."""
        return self.types.get(f"{module}.weight")


@dataclass(frozen=True)
class SparseDescription:
    """One folder of compressed weights.

    Attributes:
        file: the description.
        layout: how the files lie.
        own_codec: whether the weights are in our coding; else they are in an NPU's.
        device: which deq_scale is encoded for, empty where it is float32.
        blocks: of each rank.
    """

    file: Path
    layout: Layout
    own_codec: bool
    device: str
    blocks: tuple[RankBlock, ...]

    writer = "a compressor of sparse weights"
    names = tuple(TOOLS)
    """What --quantization may be: files of either tool look the same."""

    @property
    def encoded(self) -> bool:
        """Whether deq_scale is int64."""
        return self.device == ENCODED_DEVICE

    def fused_type(self, names: Sequence[str], rank: int = 0) -> tuple[str, str]:
        """Module of the files that holds linear layers `names` of one input, and its type.

        Raises:
            ValueError: the description does not name it, or has the layers apart.
        """
        fused, block = fused_name(names), self.blocks[rank]
        kind = block.type_of(fused)
        if kind is not None:
            return fused, kind
        apart = [name for name in names if block.type_of(name) is not None]
        if apart:
            why = f"but has {apart[0]}: compressed folders hold fused layers"
        else:
            why = f"expected an entry {fused}.weight; the file belongs to another model"
        raise ValueError(f"{self.file} does not say what {fused} of rank {rank} is, {why}")

    def type_of(self, module: str) -> str:
        """That of a linear layer of the model, on all ranks.

        Raises:
            ValueError: it is not named, or ranks have different types.
        """
        kinds = {
            f"{module} of rank {rank}": self.fused_type([module], rank)[1]
            for rank in range(len(self.blocks))
        }
        return one_type(self.file, kinds)

    def check(self, dtype: str) -> None:
        """That the model's dtype is the one there is.

        Raises:
            ValueError: it is another.
        """
        if dtype != DTYPE:
            raise ValueError(
                f"{self.file}: compressed weights (W8A8SC) are computed in {DTYPE} alone, as on "
                f"the NPU they are made for; found {dtype}. Use --dtype {DTYPE}, or drop --dtype"
            )

    def check_ranks(self, count: int) -> None:
        """That the folder was made for so many ranks.

        Raises:
            ValueError: it was made for another number; says how to change that.
        """
        made = len(self.blocks)
        if made == count:
            return
        if self.own_codec:
            advice = (
                f"files for {count}: vllm-mindspore convert {self.file.parent} --output DIR "
                f"--tensor-parallel-size {count}"
            )
        else:
            advice = (
                f"files for {count} ranks of the uncompressed W8A8S checkpoint that these were "
                "made of, with the vendor's tool: nothing else reads their coding"
            )
        raise ValueError(
            f"{self.file}: these files were made for {made} ranks, since compressed weights are "
            f"divided before they are compressed; tensor_parallel_size is {count}. Use "
            f"--tensor-parallel-size {made}, or make {advice}"
        )


def fused_name(names: Sequence[str]) -> str:
    """The module that holds linear layers of one input where they are fused."""
    parent, _, last = names[0].rpartition(".")
    return f"{parent}.{FUSED.get(last, last)}" if parent else last


def is_compressed(content: Mapping[str, Any]) -> bool:
    """Whether the JSON object of a description file is that of compressed weights."""
    if content.get(_MODEL_TYPE) == COMPRESSED or COMPRESSED in content.values():
        return True
    return CODEC in content or any(_RANK.fullmatch(key) for key in content)


def parse(file: Path, content: Mapping[str, Any]) -> SparseDescription:
    """The description that JSON object `content` of `file` is. The ranks of flat ones are known by
    their files: they have one block here.

    Raises:
        ValueError: it is none; names the file, what was expected and found.
    """
    codec, device = CODEC in content, content.get(DEVICE, "")
    if codec:
        _check_codec(file, content[CODEC])
    if not isinstance(device, str):
        raise ValueError(f"{file}: {DEVICE}: expected a name, found {device!r:.80}")
    entries = {name: value for name, value in content.items() if name not in (CODEC, DEVICE)}
    ranks = {name: value for name, value in entries.items() if _RANK.fullmatch(name)}
    others = [name for name in entries if name not in ranks and name not in _REMARKS]
    if not ranks:
        kinds = {name: entries[name] for name in others}
        return SparseDescription(file, Layout.FLAT, codec, device, (_block(file, "", kinds),))
    if others:
        raise ValueError(
            f"{file}: expected blocks rank_0 to rank_{len(ranks) - 1} alone, found "
            f"{others[0]!r:.200} beside them ({len(others)} in all)"
        )
    expected = [f"rank_{index}" for index in range(len(ranks))]
    if set(ranks) != set(expected):
        raise ValueError(
            f"{file}: expected the blocks rank_0 to rank_{len(ranks) - 1}, found "
            f"{', '.join(sorted(ranks))}"
        )
    blocks = tuple(_block(file, name, ranks[name]) for name in expected)
    _check_same(file, blocks)
    return SparseDescription(file, Layout.FOLDERS, codec, device, blocks)


def of_parts(parts: Sequence[SparseDescription]) -> SparseDescription:
    """The description of a folder whose ranks have one each."""
    blocks = tuple(part.blocks[0] for part in parts)
    return replace(parts[0], layout=Layout.PARTS, own_codec=False, blocks=blocks)


def _check_codec(file: Path, found: Any) -> None:
    """That it is ours, to the type of the version: True and 1.0 equal 1 in Python."""
    ours = {"name": sparse_codec.NAME, "version": sparse_codec.VERSION}
    if found != ours or type(found["version"]) is not int:
        raise ValueError(
            f"{file}: {CODEC}: expected {ours}, the coding this release reads, found "
            f"{found!r:.200}. Make the files anew from the uncompressed W8A8S checkpoint: "
            "vllm-mindspore convert"
        )


def _block(file: Path, rank: str, content: Any) -> RankBlock:
    place = f"{file}: {rank}" if rank else str(file)
    if not isinstance(content, dict):
        raise ValueError(f"{place}: expected an object, found {type(content).__name__}")
    types: dict[str, str] = {}
    stated: dict[str, dict[str, int]] = {}
    checksums: dict[str, int] = {}
    for name, value in content.items():
        _check_name(place, name)
        suffix = next((end for end in _SHAPES if name.endswith(end)), None)
        if name.endswith(CHECKSUM):
            checksums[name.removesuffix(CHECKSUM)] = _checksum(place, name, value)
        elif suffix is not None:
            stated.setdefault(name.removesuffix(suffix), {})[suffix] = _size(place, name, value)
        elif isinstance(value, str):
            types[name] = _kind(place, name, value, flat=not rank)
        else:
            raise ValueError(
                f"{place}: {name!r:.200}: expected the name of a type, found {value!r:.80}"
            )
    _check_sizes(place, types, stated, flat=not rank)
    _check_of_compressed(place, types, dict.fromkeys(checksums, CHECKSUM))
    sizes = {module: (found[_SHAPES[0]], found[_SHAPES[1]]) for module, found in stated.items()}
    return RankBlock(types, sizes, checksums)


def _check_same(file: Path, blocks: Sequence[RankBlock]) -> None:
    """That all ranks have the same tensors of the same types, but those that one rank adds."""
    first = blocks[0].types
    for rank, block in enumerate(blocks[1:], 1):
        for name in sorted(first.keys() | block.types.keys()):
            module, _, last = name.rpartition(".")
            if split_of(module) is Split.ROW and is_added_once(last):
                continue
            expected, found = first.get(name, "missing"), block.types.get(name, "missing")
            if found != expected:
                raise ValueError(
                    f"{file}: rank_{rank}: {name} is {found}, of rank_0 it is {expected}: expected "
                    "the same tensors with the same types on all ranks"
                )


def _check_name(place: str, name: str) -> None:
    """Messages have names as they are."""
    if len(name) > _MAX_NAME or not name.isprintable():
        raise ValueError(
            f"{place}: expected printable names of at most {_MAX_NAME} characters, found "
            f"{name!r:.80}"
        )


def _kind(place: str, name: str, value: str, *, flat: bool) -> str:
    """SPARSE for compressed layers, whatever the layout calls them."""
    kind = value.upper()
    if flat and kind == COMPRESSED:
        return SPARSE
    if kind not in _TYPES or (flat and kind == SPARSE):
        accepted = (COMPRESSED, *_TYPES[1:]) if flat else _TYPES
        raise ValueError(
            f"{place}: {name!r:.200} has the type {value!r:.40}; supported here: "
            f"{', '.join(accepted)}"
        )
    return kind


def _size(place: str, name: str, value: Any) -> int:
    """The only number of a shape."""
    if isinstance(value, list) and len(value) == 1 and type(value[0]) is int and value[0] >= 0:
        return int(value[0])
    raise ValueError(f"{place}: {name!r:.200}: expected [bytes], found {value!r:.80}")


def _checksum(place: str, name: str, value: Any) -> int:
    if type(value) is int and 0 <= value < 1 << 32:
        return int(value)
    raise ValueError(f"{place}: {name!r:.200}: expected a CRC-32, found {value!r:.80}")


def _check_of_compressed(place: str, types: Mapping[str, str], ends: Mapping[str, str]) -> None:
    """What is said of modules, by the ends of the names."""
    for module, end in ends.items():
        if types.get(f"{module}.weight") != SPARSE:
            raise ValueError(f"{place}: {module}{end} is of no compressed layer")


def _check_sizes(
    place: str, types: Mapping[str, str], stated: Mapping[str, Mapping[str, int]], *, flat: bool
) -> None:
    """Compressed layers have both sizes, in flat files both or none; others have none. All tensors
    of a module have one type."""
    _check_of_compressed(
        place, types, {module: next(iter(found)) for module, found in stated.items()}
    )
    for name, kind in types.items():
        module, _, last = name.rpartition(".")
        weight = types.get(f"{module}.weight", kind)
        if kind != weight and not (last == "bias" and kind == FLOAT):
            raise ValueError(
                f"{place}: the tensors of {module} have several types, {weight} and {kind}; "
                "expected one"
            )
        if last == "weight" and kind == SPARSE and (module in stated or not flat):
            missing = [f"{module}{end}" for end in _SHAPES if end not in stated.get(module, {})]
            if missing:
                raise ValueError(
                    f"{place}: {name} is {SPARSE}, but {missing[0]} is missing: expected the bytes "
                    "of its stream and of its index"
                )
