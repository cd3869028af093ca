# SPDX-License-Identifier: Apache-2.0
"""Finished parts of a checkpoint that is being made, kept so that the work can go on after it was
interrupted."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import torch

from vllm_mindspore.model_executor.model_loader import strict_json
from vllm_mindspore.model_executor.model_loader.mapped_file import MappedFile
from vllm_mindspore.quantization.ptq import tensor_files
from vllm_mindspore.quantization.ptq.tensor_files import Entry

STATE = "state.json"
_LOCK = "lock"


class WorkFolder:
    """A folder of parts: tensors, and a JSON object about them."""

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any]) -> None:
        """Makes the folder, or takes up one whose parts were made from the same.

        Raises ValueError if another process uses it, or if its parts were made from something else.
        """
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = self._locked()
        state = folder / STATE
        if not state.exists():
            tensor_files.write_json(state, fingerprint)
            return
        found, wanted = _stated(state), _plain(fingerprint)
        if found != wanted:
            self.close()
            keys = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
            raise ValueError(
                f"{folder} holds unfinished work with other {', '.join(keys)}; finish it with the "
                "options it was begun with, or remove that folder"
            )

    def has(self, part: str) -> bool:
        """Whether a part is finished."""
        return (self.folder / f"{part}.json").exists()

    def add(
        self, part: str, tensors: Mapping[str, torch.Tensor], content: Mapping[str, Any]
    ) -> None:
        """Keeps a finished part."""
        entries = [Entry.of(name, tensor) for name, tensor in tensors.items()]
        tensor_files.write(self.folder / f"{part}.safetensors", entries, {})
        tensor_files.write_json(self.folder / f"{part}.json", content)

    def content(self, part: str) -> dict[str, Any]:
        """What was kept about a part."""
        file = self.folder / f"{part}.json"
        return strict_json.parse_object(file.read_bytes(), str(file))

    def entries(self, part: str) -> list[Entry]:
        """The tensors of a part, mapped from its file."""
        file = MappedFile(self.folder / f"{part}.safetensors")
        return [Entry.of(name, file.tensor(name)) for name in file.header]

    def close(self) -> None:
        """Lets others use the folder."""
        self._lock.close()

    def _locked(self) -> TextIO:
        lock = (self.folder / _LOCK).open("w", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise ValueError(f"another process is at work in {self.folder}") from error
        return lock


def was_made_for(folder: Path, fingerprint: Mapping[str, Any]) -> bool:
    """Whether a WorkFolder was made there from the same."""
    state = folder / STATE
    return state.exists() and _stated(state) == _plain(fingerprint)


def _stated(state: Path) -> dict[str, Any]:
    return strict_json.parse_object(state.read_bytes(), str(state))


def _plain(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """As it is when it has been written and read."""
    found: dict[str, Any] = json.loads(json.dumps(fingerprint))
    return found
