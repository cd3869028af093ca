# SPDX-License-Identifier: Apache-2.0
"""Which files of a folder hold the weights, and which tensor is in which; imports no MindSpore.

An index decides, Hugging Face's or ModelSlim's; without one it is `model.safetensors`, else every
`*.safetensors`. Names in an index are plain names, so it cannot lead out of the folder. Links may:
what they lead to is only ever read as safetensors, and who can place a link there can place any
file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_mindspore.model_executor.model_loader import strict_json
from vllm_mindspore.model_executor.model_loader.safetensors_header import (
    TensorInfo,
    open_regular,
    read_header,
)

_INDEX = "model.safetensors.index.json"
# ModelSlim's, with or without the type of quantization; its weights begin like it.
_QUANTIZED = "quant_model_weight*.safetensors"
_QUANTIZED_INDEX = f"{_QUANTIZED}.index.json"
INDEX_PATTERNS = (_INDEX, _QUANTIZED_INDEX)
_SINGLE = "model.safetensors"
_MAX_JSON_BYTES = 100_000_000  # like the header of a safetensors file
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.gguf", "*.h5", "*.msgpack")


@dataclass(frozen=True)
class CheckpointFiles:
    """The weight files of one folder.

    Attributes:
        folder: where they are.
        names: their names.
        listed: tensor -> file name as the index has it, or None without an index.
        index: the name of the index.
    """

    folder: Path
    names: tuple[str, ...]
    listed: Mapping[str, str] | None
    index: str = ""

    def places(self, headers: Mapping[str, Mapping[str, TensorInfo]]) -> dict[str, str]:
        """Tensor -> file name, given file name -> header.

        Raises ValueError for a tensor that two files hold, or that is not where the index says.
        """
        found: dict[str, str] = {}
        for name in self.names:
            for tensor in headers[name]:
                if tensor in found:
                    raise ValueError(
                        f"{self.folder / name}: tensor {tensor} is also in another file, "
                        f"{found[tensor]}; remove the file that does not belong to the checkpoint"
                    )
                found[tensor] = name
        self._check_index(found)
        return found

    def _check_index(self, found: Mapping[str, str]) -> None:
        listed = self.listed or {}
        absent = sorted(listed.keys() - found.keys())
        if absent:
            raise ValueError(
                f"{self.folder / self.index} lists {absent[:5]} ({len(absent)} in all), which no "
                "file holds"
            )
        for tensor, name in listed.items():
            if found[tensor] != name:
                raise ValueError(
                    f"{self.folder / self.index}: tensor {tensor}: expected in {name}, found in "
                    f"{found[tensor]}"
                )


def select(folder: Path) -> CheckpointFiles:
    """Chooses the weight files of a folder, without opening them.

    Raises ValueError for a folder without safetensors files, with several indexes or a broken one,
    or with a `model.safetensors` beside an index that does not list it or ModelSlim's weights.
    """
    indexes = _indexes(folder)
    if not indexes:
        return CheckpointFiles(folder, tuple(_unindexed(folder)), None)
    if len(indexes) > 1:
        raise _two_checkpoints(folder, " and ".join(indexes))
    index = indexes[0]
    listed = _read_index(folder / index)
    names = tuple(sorted(set(listed.values())))
    if os.path.lexists(folder / _SINGLE) and _SINGLE not in names:
        raise _two_checkpoints(folder, f"{_SINGLE} and {index}, which lists other files")
    return CheckpointFiles(folder, names, listed, index)


def _indexes(folder: Path) -> list[str]:
    # Without a wildcard, glob does not see links that lead nowhere.
    found = sorted(file.name for file in folder.glob(_QUANTIZED_INDEX))
    return [_INDEX, *found] if os.path.lexists(folder / _INDEX) else found


def _two_checkpoints(folder: Path, found: str) -> ValueError:
    return ValueError(
        f"{folder} has {found}: these are two checkpoints. Remove the one you do not want"
    )


def header_of(file: Path) -> dict[str, TensorInfo]:
    """What the header of a file says of each tensor. Raises ValueError naming a broken file."""
    with open_regular(file) as stream:
        return read_header(stream, file)


def object_of(file: Path) -> dict[str, Any]:
    """The JSON object that a file is. Raises ValueError naming one that is broken, missing or
    longer than any that describes a model."""
    with open_regular(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > _MAX_JSON_BYTES:
            raise ValueError(
                f"{file}: expected a JSON object of at most {_MAX_JSON_BYTES} bytes, found a file "
                f"of {size}"
            )
        return strict_json.parse_object(stream.read(size), str(file))


def check_folder(folder: Path) -> dict[str, TensorInfo]:
    """Every header of a folder, tensor -> what it says. Raises ValueError naming the first file
    that is broken."""
    files = select(folder)
    headers = {name: header_of(folder / name) for name in files.names}
    files.places(headers)
    return {tensor: info for header in headers.values() for tensor, info in header.items()}


def _unindexed(folder: Path) -> list[str]:
    if os.path.lexists(folder / _SINGLE):
        if quantized := sorted(file.name for file in folder.glob(_QUANTIZED)):
            raise _two_checkpoints(folder, f"{_SINGLE} and {quantized[0]}")
        return [_SINGLE]
    names = sorted(file.name for file in folder.glob("*.safetensors"))
    if not names:
        raise ValueError(f"{folder} has no *.safetensors file{_instead(folder)}")
    return names


def _instead(folder: Path) -> str:
    """What to do, by what is there in place of safetensors files."""
    ranks = sorted(part.name for part in folder.glob("rank_*") if part.is_dir())
    if ranks:
        return (
            f", but {', '.join(ranks[:5])}: its weights are compressed (W8A8SC), a folder for each "
            "rank, and their quantization_description.json is missing. Copy it from the folder "
            "that the tool wrote"
        )
    others = sorted(file.name for pattern in _OTHER_WEIGHTS for file in folder.glob(pattern))
    if others:
        return (
            f", but {', '.join(others[:5])}. Pickle files can run code when they are read and are "
            "never opened; convert the checkpoint to safetensors, for example with transformers: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)"
        )
    return (
        "; convert the checkpoint to safetensors, or use --load-format dummy to run without weights"
    )


def _read_index(index: Path) -> dict[str, str]:
    weight_map: Any = object_of(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(
            f"{index}: weight_map must be a non-empty object of tensor -> file name, found "
            f"{'none' if weight_map is None else f'{type(weight_map).__name__} {weight_map!r:.80}'}"
        )
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or not _is_plain_name(name):
            raise ValueError(
                f"{index}: tensor {tensor!r:.200}: {name!r:.200} is not a plain file name in the "
                "folder"
            )
    return weight_map


def _is_plain_name(name: str) -> bool:
    return name not in ("", ".", "..") and Path(name).name == name and name.isprintable()
