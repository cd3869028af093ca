# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint folder says about how it is quantized. Imports no MindSpore.

Two places say it: a description file, which Ascend tools write, and `quantization_config` in
config.json. Where both do, they have to mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vllm_mindspore.model_executor.model_loader import checkpoint_files, rank_files
from vllm_mindspore.model_executor.model_loader.safetensors_header import TensorInfo
from vllm_mindspore.quantization import compressed_tensors, description, sparse_description
from vllm_mindspore.quantization.compressed_tensors import CompressedTensors
from vllm_mindspore.quantization.description import TOOLS, Description, Tool
from vllm_mindspore.quantization.sparse_description import SparseDescription

CONFIG = "config.json"
METHODS = (*TOOLS, compressed_tensors.METHOD)
"""What --quantization may be, in lower case."""

Quantization = Description | CompressedTensors
"""What a checkpoint of a whole model says of itself."""

Stored = Quantization | SparseDescription
"""What any checkpoint does."""

# Names of weight files -> who gives them, and the description that belongs to them.
_WRITTEN = {
    "quant_model_weight*.safetensors": (Tool.MODELSLIM.writer, "quant_model_description.json"),
    "quant-model-*.safetensors": (Tool.GOLDEN_STICK.writer, "quantization_description.json"),
}
# compressed-tensors of old versions has the other key.
_KEYS = ("quantization_config", "compression_config")


def read_quantization(folder: Path, stated: Mapping[str, Any] | None) -> Stored | None:
    """How the checkpoint in `folder` is quantized, None for plain weights.

    `stated` is the `quantization_config` of its config.json.

    Raises:
        ValueError: both places contradict each other, one is broken, or it is no format that is
            read here; names the file, who wrote it, and what to do.
    """
    found = read_description(folder)
    if stated is None:
        return found
    method = method_of(folder, stated)
    if found is not None:
        _check_agree(found, method)
        return found
    if method == compressed_tensors.METHOD:
        return compressed_tensors.parse(folder / CONFIG, stated)
    if method in TOOLS:
        raise ValueError(
            f"{folder / CONFIG}: quantization_config has quant_method {method!r}, but {folder} has "
            f"{_no_description()}. Copy the file that {_names(method)} wrote beside the weights "
            "into the folder, or remove quantization_config if the weights are float"
        )
    raise ValueError(
        f"{folder / CONFIG}: quantization_config has quant_method {method!r}, which is not read "
        f"here: its weights cannot be used. Take the float checkpoint, or one that Golden Stick, "
        f"ModelSlim or {compressed_tensors.WRITER} (int8) made of it; if the weights are float "
        "already, remove quantization_config"
    )


def check_asked(folder: Path, asked: str, found: Stored | None) -> None:
    """Raise ValueError where --quantization contradicts the files."""
    if found is None:
        if any(folder.glob("*.safetensors")) or any(folder.glob("rank_*")):
            check_described(folder, checkpoint_files.check_folder(folder))
        raise ValueError(
            f"quantization={asked!r}, but {folder} has {_no_description()} and no "
            "quantization_config in config.json: its weights are plain. Drop --quantization, or "
            "add the file that the tool wrote beside them"
        )
    if asked not in found.names:
        raise ValueError(
            f"quantization={asked!r}, but {found.file} was written by {found.writer} for "
            f"--quantization {found.names[0]}. Drop --quantization: the files say it"
        )


def check_described(folder: Path, tensors: Mapping[str, TensorInfo]) -> None:
    """Raise ValueError where weights are int8 in a folder that does not say how they are
    quantized."""
    int8 = (name for name, info in tensors.items() if info.dtype == "I8")
    name = next((name for name in int8 if name.endswith(".weight")), None)
    if name is None:
        return
    writer, file = next(
        (found for pattern, found in _WRITTEN.items() if any(folder.glob(pattern))),
        ("a quantization tool", "description file"),
    )
    raise ValueError(
        f"{folder}: {writer} made this checkpoint ({name} is int8), but its {file} is missing: "
        f"there is {_no_description()} and no quantization_config in config.json. Copy it from the "
        "folder that the tool wrote"
    )


def stated_in(config: Any) -> Mapping[str, Any] | None:
    """The `quantization_config` of a config.json, or of transformers' object made of it."""
    fields = config if isinstance(config, Mapping) else vars(config)
    return next((found for key in _KEYS if (found := fields.get(key)) not in (None, {})), None)


def method_of(folder: Path, stated: Any) -> str:
    """Its `quant_method`, as vLLM spells it. Raises ValueError where there is none."""
    method = stated.get("quant_method") if isinstance(stated, Mapping) else None
    if not isinstance(method, str) or not method:
        raise ValueError(
            f"{folder / CONFIG}: quantization_config: expected an object with quant_method, found "
            f"{stated!r:.200}; remove it if the weights are float"
        )
    return method.lower().replace("compressed_tensors", compressed_tensors.METHOD)


def read_description(folder: Path) -> Description | SparseDescription | None:
    """The description in `folder`, None for a checkpoint of plain weights.

    Raises:
        ValueError: there are several, or it is broken; names the file.
    """
    file = _description_file(folder)
    if file is not None:
        content = checkpoint_files.object_of(file)
        if sparse_description.is_compressed(content):
            return rank_files.with_ranks(sparse_description.parse(file, content))
        return description.parse(file, content)
    parts = rank_files.parts(folder)
    files = [_description_file(part) for part in parts]
    described = [
        sparse_description.parse(file, checkpoint_files.object_of(file))
        for file in files
        if file is not None
    ]
    if not parts or len(described) < len(parts):
        return None
    return sparse_description.of_parts(described)


def _description_file(folder: Path) -> Path | None:
    found = sorted(file for stem in description.STEMS for file in folder.glob(f"{stem}*.json"))
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(
            f"{folder} has {len(found)} quantization descriptions, "
            f"{', '.join(file.name for file in found)}; expected one: remove those that do not "
            "belong to the weights"
        )
    return found[0]


def _check_agree(found: Description | SparseDescription, method: str) -> None:
    if method not in found.names:
        raise ValueError(
            f"{found.file}: {found.writer} made this checkpoint, but the config.json beside "
            f"it still has a quantization_config with quant_method {method!r}, which speaks of the "
            "weights it was made of. Remove quantization_config from config.json"
        )


def _no_description() -> str:
    files = ", ".join(f"{stem}*.json" for stem in description.STEMS)
    return f"none of the description files that say how weights are quantized ({files})"


def _names(method: str) -> str:
    return " or ".join(tool.writer for tool in TOOLS[method])
