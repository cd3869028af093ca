# SPDX-License-Identifier: Apache-2.0
"""Finds a model's checkpoint folder: a local path, or a Hugging Face name to download."""

from __future__ import annotations

from pathlib import Path

from vllm.config import LoadConfig, ModelConfig
from vllm.model_executor.model_loader.weight_utils import download_weights_from_hf

from vllm_mindspore.model_executor.model_loader.checkpoint_files import INDEX_PATTERNS

_PATTERNS = ["*.safetensors", *INDEX_PATTERNS, "quant*description*.json"]


def checkpoint_folder(model: ModelConfig, load: LoadConfig) -> Path:
    """The local folder with the safetensors files of `model`, downloaded if it is a hub name.

    Raises ValueError when a local path is not a folder.
    """
    local = Path(model.model)
    if local.is_dir():
        return local
    if local.exists():
        raise ValueError(f"{local} is a file; give the folder that holds config.json and weights")
    folder = download_weights_from_hf(
        model.model,
        load.download_dir,
        _PATTERNS,
        model.revision,
        ignore_patterns=load.ignore_patterns,
    )
    return Path(folder)
