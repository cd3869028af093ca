# SPDX-License-Identifier: Apache-2.0
"""A checkpoint folder as its headers and JSON files describe it; no weight is read.

What cannot be read becomes a problem, and the rest is read all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from vllm_mindspore.model_executor.model_loader import checkpoint_files, preflight
from vllm_mindspore.model_executor.model_loader.quantization_files import (
    CONFIG,
    Quantization,
    check_described,
    read_quantization,
    stated_in,
)
from vllm_mindspore.model_executor.model_loader.safetensors_header import (
    TensorInfo,
    open_regular,
    read_header,
)
from vllm_mindspore.model_executor.models import registry
from vllm_mindspore.model_executor.models.config import decoder_config
from vllm_mindspore.model_executor.models.layout import Layout, layout_of
from vllm_mindspore.quantization.sharding import Rank
from vllm_mindspore.quantization.sparse_description import SparseDescription

Found = TypeVar("Found")


@dataclass
class Checkpoint:
    """One folder.

    Attributes:
        folder: where it is.
        config: config.json, empty where it is missing or broken.
        places: tensor -> name of its file.
        tensors: tensor -> what its header says.
        quantization: what the folder says of itself; None for plain weights.
        unclear: whether that could not be read.
        layout: the tensors that the model takes; None for models that are not served here.
        pools: whether the model has no language model head.
        problems: what is wrong, one line each.
    """

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, TensorInfo] = field(default_factory=dict)
    quantization: Quantization | None = None
    unclear: bool = False
    layout: Layout | None = None
    pools: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def architecture(self) -> str:
        """The first in config.json, empty where it names none."""
        names = self.config.get("architectures")
        return str(names[0]) if isinstance(names, list) and names else ""

    def attempt(self, read: Callable[[], Found]) -> Found | None:
        """The result of `read`, or None and a problem more."""
        try:
            return read()
        except ValueError as error:
            self.problems.append(str(error))
            return None


def read(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`."""
    found = Checkpoint(folder)
    found.config = found.attempt(lambda: config_of(folder)) or {}
    found.attempt(lambda: _read_headers(found))
    problems = len(found.problems)
    found.quantization = found.attempt(lambda: _quantization(found))
    found.unclear = len(found.problems) > problems
    found.layout = found.attempt(lambda: layout_of_rank(found, Rank(0, 1)))
    return found


def config_of(folder: Path) -> dict[str, Any]:
    """The config.json of a folder. Raises ValueError for a broken one."""
    return checkpoint_files.object_of(folder / CONFIG)


def _quantization(found: Checkpoint) -> Quantization | None:
    stored = read_quantization(found.folder, stated_in(found.config))
    if isinstance(stored, SparseDescription):
        raise ValueError(f"{stored.file}: compressed weights, {stored.layout.value}")
    if stored is None:
        check_described(found.folder, found.tensors)
    return stored


def _read_headers(found: Checkpoint) -> None:
    """A file that is broken hides its own tensors only."""
    files = checkpoint_files.select(found.folder)
    headers: dict[str, dict[str, TensorInfo]] = {}
    for name in files.names:
        headers[name] = found.attempt(lambda file=found.folder / name: _header(file)) or {}  # type: ignore[misc]
    for name, tensors in headers.items():
        found.tensors |= tensors
        found.places |= dict.fromkeys(tensors, name)
    if all(headers.values()):
        files.places(headers)


def _header(file: Path) -> dict[str, TensorInfo]:
    with open_regular(file) as stream:
        return read_header(stream, file)


def layout_of_rank(found: Checkpoint, rank: Rank) -> Layout | None:
    """The tensors of one rank of the model; None without a config.json.

    Raises:
        ValueError: the model is not served, or not by so many ranks.
    """
    if not found.config:
        return None
    architecture = registry.decoder_of(found.architecture)
    if architecture not in registry.ARCHITECTURES:
        raise ValueError(
            f"{found.folder / CONFIG}: the architecture {found.architecture!r:.100} is not served "
            f"here; served: {', '.join(registry.supported_architectures())}"
        )
    found.pools = architecture != found.architecture
    preflight.check_sizes(found.folder, found.config)
    return _with_defaults(found, rank)


def _with_defaults(found: Checkpoint, rank: Rank) -> Layout:
    """By config.json with what transformers fills in for its model type."""
    from transformers import AutoConfig  # takes seconds

    fields = {name: value for name, value in found.config.items() if name != "model_type"}
    try:
        config = AutoConfig.for_model(str(found.config.get("model_type")), **fields)
        return layout_of(config.model_type, decoder_config(config).of_rank(rank))
    except Exception as error:  # the library raises no narrower one
        text = f"{error!s:.500}".removeprefix(f"{CONFIG}: ")
        raise ValueError(f"{found.folder / CONFIG}: {text}") from error
