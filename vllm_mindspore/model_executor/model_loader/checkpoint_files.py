# SPDX-License-Identifier: Apache-2.0
"""Which files of a folder hold the weights, and which tensor is in which; imports no MindSpore.

An index decides; without one it is `model.safetensors`, else every `*.safetensors`. Names in an
index are plain names, so it cannot lead out of the folder. Links may: what they lead to is only
ever read as safetensors, and who can place a link there can place any file.
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
_SINGLE = "model.safetensors"
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.gguf", "*.h5", "*.msgpack")


@dataclass(frozen=True)
class CheckpointFiles:
    """The weight files of one folder.

    Attributes:
        folder: where they are.
        names: their names.
        listed: tensor -> file name as the index has it, or None without an index.
    """

    folder: Path
    names: tuple[str, ...]
    listed: Mapping[str, str] | None

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
                f"{self.folder / _INDEX} lists {absent[:5]} ({len(absent)} in all), which no file "
                "holds"
            )
        for tensor, name in listed.items():
            if found[tensor] != name:
                raise ValueError(
                    f"{self.folder / _INDEX}: tensor {tensor}: expected in {name}, found in "
                    f"{found[tensor]}"
                )


def select(folder: Path) -> CheckpointFiles:
    """Chooses the weight files of a folder, without opening them.

    Raises ValueError for a folder without safetensors files, with a broken index, or with an
    index and a `model.safetensors` that the index does not list.
    """
    index = folder / _INDEX
    if not os.path.lexists(index):
        return CheckpointFiles(folder, tuple(_unindexed(folder)), None)
    listed = _read_index(index)
    names = tuple(sorted(set(listed.values())))
    if os.path.lexists(folder / _SINGLE) and _SINGLE not in names:
        raise ValueError(
            f"{folder} has {_SINGLE} and {_INDEX}, which lists other files: these are two "
            "checkpoints. Remove the one you do not want"
        )
    return CheckpointFiles(folder, names, listed)


def check_folder(folder: Path) -> None:
    """Reads every header of a folder. Raises ValueError naming the first file that is broken."""
    files = select(folder)
    headers: dict[str, dict[str, TensorInfo]] = {}
    for name in files.names:
        with open_regular(folder / name) as stream:
            headers[name] = read_header(stream, folder / name)
    files.places(headers)


def _unindexed(folder: Path) -> list[str]:
    if os.path.lexists(folder / _SINGLE):
        return [_SINGLE]
    names = sorted(file.name for file in folder.glob("*.safetensors"))
    if not names:
        raise ValueError(f"{folder} has no *.safetensors file{_instead(folder)}")
    return names


def _instead(folder: Path) -> str:
    """What to do, by what is there in place of safetensors files."""
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
    with open_regular(index) as stream:
        content = strict_json.parse_object(stream.read(), str(index))
    weight_map: Any = content.get("weight_map")
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
