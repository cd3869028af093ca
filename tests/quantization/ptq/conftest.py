# SPDX-License-Identifier: Apache-2.0
"""Random checkpoints of each architecture, and MindSpore as a worker sets it up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.e2e.checkpoints import SPECS, write_checkpoint
from vllm_mindspore.quantization.ptq.float_checkpoint import FloatCheckpoint

FloatFolder = Callable[..., Path]


@pytest.fixture(scope="session")
def float_folder(tmp_path_factory: pytest.TempPathFactory) -> FloatFolder:
    """Folder of a random checkpoint, written on first use."""
    folders: dict[tuple[str, torch.dtype], Path] = {}

    def get(name: str, dtype: torch.dtype = torch.float32) -> Path:
        if (name, dtype) not in folders:
            folder = tmp_path_factory.mktemp(name)
            folders[name, dtype] = write_checkpoint(SPECS[name], folder, dtype)
        return folders[name, dtype]

    return get


@pytest.fixture(scope="session")
def tiny(tiny_model: Path) -> FloatCheckpoint:
    """The tiny model."""
    return FloatCheckpoint(tiny_model)
