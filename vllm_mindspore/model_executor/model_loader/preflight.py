# SPDX-License-Identifier: Apache-2.0
"""What the front end checks of a model folder before it starts an engine: no weight is read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer
from vllm.logger import init_logger

from vllm_mindspore.model_executor.model_loader import checkpoint_files
from vllm_mindspore.model_executor.model_loader.quantization_files import (
    Stored,
    check_described,
    read_description,
    read_quantization,
    stated_in,
)
from vllm_mindspore.model_executor.model_loader.safetensors_header import open_regular
from vllm_mindspore.quantization.sparse_description import DTYPE, SparseDescription

if TYPE_CHECKING:
    from vllm.config import LoadConfig, ModelConfig

logger = init_logger(f"vllm.{__name__}")

_CONFIG = "config.json"
_MODEL_FILES = (_CONFIG, "generation_config.json")
# More layers than any model has, and few enough for transformers to write the kind of each down.
_MOST_LAYERS = 10_000
# Sizes that every supported model states; those that may be null have another default.
_SIZES = ("hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads")
_SIZES_OR_NULL = ("intermediate_size", "num_key_value_heads", "head_dim", "max_position_embeddings")
_TOKENIZER = "tokenizer.json"
_TOKENIZER_PATTERNS = ("tokenizer.*", "vocab.*", "tekken.json", "*.tiktoken", "*.model")
_TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def check_config(folder: Path, *, remote_code: bool = False) -> None:
    """Before anybody reads the config.json of a local model: an object with possible sizes, that
    does not contradict the files beside it.

    `remote_code`: whether the code it names will be run.

    Raises ValueError naming the file, what was expected and found.
    """
    config = (_check_object(folder / _CONFIG) if folder.is_dir() else None) or {}
    check_sizes(folder, config)
    if config:
        quantization = read_quantization(folder, stated_in(config))
        if remote_code:
            _check_code(folder, config, quantization)


def check_sizes(folder: Path, config: Mapping[str, object]) -> None:
    """Raise ValueError for a size in config.json that no model can have."""
    for name in (*_SIZES, *_SIZES_OR_NULL):
        size = config.get(name, 1)
        if size is None and name in _SIZES_OR_NULL:
            continue
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{folder / _CONFIG}: {name}={size!r} must be a positive integer")
        if name == "num_hidden_layers" and size > _MOST_LAYERS:
            raise ValueError(
                f"{folder / _CONFIG}: {name}={size} is more than any model has; expected at most "
                f"{_MOST_LAYERS}"
            )


def only_dtype(folder: Path) -> str | None:
    """The one dtype that the files of a local model can be computed in; None where any will do."""
    if not folder.is_dir() or not isinstance(read_description(folder), SparseDescription):
        return None
    logger.info("%s: compressed weights (W8A8SC) are computed in %s alone", folder, DTYPE)
    return DTYPE


def _check_code(folder: Path, config: Mapping[str, object], quantization: Stored | None) -> None:
    """transformers' message about a missing file does not say who forgot it."""
    classes = config.get("auto_map")
    place = classes.get("AutoConfig") if isinstance(classes, dict) else None
    # "repository--module.Class" is in another repository.
    if not isinstance(place, str) or "--" in place:
        return
    name = f"{place.partition('.')[0]}.py"
    if not os.path.lexists(folder / name):
        writer = quantization.writer if quantization else "the tool that wrote it"
        raise ValueError(
            f"{folder / _CONFIG}: auto_map names {place!r:.200}, but {folder} has no "
            f"{name!r:.200}: {writer} did not copy it. Copy it from the folder of the float model, "
            "or drop --trust-remote-code: no code of a model folder is needed for the models that "
            "are served here"
        )


def check(model: ModelConfig, load: LoadConfig) -> None:
    """Reads the JSON files of a local model and the headers of its weights; a model that is still
    to be downloaded is checked by the worker.

    Raises ValueError naming the first file that is broken, what was expected and found.
    """
    folder = Path(model.model)
    if folder.is_dir():
        for name in _MODEL_FILES:
            _check_object(folder / name)
        # Folders of compressed weights are checked with their description.
        described = read_description(folder)
        ranks = isinstance(described, SparseDescription)
        if load.load_format != "dummy" and not ranks:
            tensors = checkpoint_files.check_folder(folder)
            if described is None and stated_in(model.hf_config) is None:
                check_described(folder, tensors)
    if not model.skip_tokenizer_init:
        _check_tokenizer(Path(model.tokenizer))


def _check_tokenizer(folder: Path) -> None:
    if not folder.is_dir():
        return
    if not any(file for pattern in _TOKENIZER_PATTERNS for file in folder.glob(pattern)):
        raise ValueError(
            f"{folder} has no tokenizer ({', '.join(_TOKENIZER_PATTERNS)}); download the model "
            "again, name one with --tokenizer, or send token ids with --skip-tokenizer-init"
        )
    for name in _TOKENIZER_FILES:
        _check_object(folder / name)
    if os.path.lexists(folder / _TOKENIZER):
        _check_contents(folder / _TOKENIZER)


def _check_contents(file: Path) -> None:
    """By the library that vLLM uses later, whose messages do not name the file."""
    open_regular(file).close()
    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises no narrower one
        raise ValueError(
            f"{file}: expected a tokenizer, found: {error!s:.500}; download it again"
        ) from error


def _check_object(file: Path) -> dict[str, object] | None:
    """The JSON object in `file`, None when there is no such file."""
    return checkpoint_files.object_of(file) if os.path.lexists(file) else None
