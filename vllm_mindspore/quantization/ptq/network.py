# SPDX-License-Identifier: Apache-2.0
"""A float checkpoint as Golden Stick's surface takes it, and what was made of it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vllm_mindspore.model_executor.models import registry
from vllm_mindspore.quantization.ptq.float_checkpoint import FloatCheckpoint
from vllm_mindspore.quantization.ptq.job import Job
from vllm_mindspore.quantization.ptq.work_folder import WorkFolder

# What is kept until it is saved, beside its TemporaryDirectory, which ends with it.
_Made = tuple[Job, WorkFolder, TemporaryDirectory[str]]


class NativeNetwork:
    """A model of ours. Its layers are read when they are needed, one at a time.

    Attributes:
        checkpoint: where it is from.
        made: what PTQ.apply made of it, until it is saved or made again.
    """

    def __init__(self, folder: Path) -> None:
        """Raises ValueError for a folder that is quantized already or not supported."""
        self.checkpoint = FloatCheckpoint(folder)
        self.made: _Made | None = None

    @property
    def decoder_layer_type(self) -> type[Any]:
        """The class of its decoder layers, for PTQ.decoder_layer_types."""
        found: type[Any] = registry.resolve(self.checkpoint.hf_config.architectures).layer
        return found


def load_network(folder: str | Path) -> NativeNetwork:
    """The model in a folder, in place of `AutoModel.from_pretrained` of the users' script.

    Raises ValueError for a folder that is quantized already or not supported.
    """
    return NativeNetwork(Path(folder))
