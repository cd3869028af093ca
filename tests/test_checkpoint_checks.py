# SPDX-License-Identifier: Apache-2.0
"""Compressed folders and the options that speak of them, in vLLM's configuration path."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from vllm.config import VllmConfig
from vllm.engine.arg_utils import EngineArgs

from tests.conversion.folders import random_folder
from vllm_mindspore import checkpoint_checks
from vllm_mindspore.conversion.convert import compress


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for one rank, whose config.json says bfloat16."""
    place = tmp_path_factory.mktemp("compressed")
    compress(random_folder(place / "whole"), place / "made", 1)
    config = json.loads((place / "made" / "config.json").read_text())
    (place / "made" / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    return place / "made"


def configure(folder: Path, **options: Any) -> VllmConfig:
    arguments = {"skip_tokenizer_init": True, **options}
    return EngineArgs(model=str(folder), **arguments).create_engine_config()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"quantization": "golden-stick", "load_format": "sparse_quant"},
        {"quantization": "GOLDEN_STICK", "load_format": "SPARSE_QUANT", "dtype": "float16"},
        {"quantization": "ascend"},
    ],
)
def test_with_flags_and_without(made: Path, options: dict[str, Any]) -> None:
    """The files say what they are, and the dtype is the one there is."""
    assert configure(made, **options).model_config.dtype == torch.float16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "bfloat16"}, r"in float16 alone.*found bfloat16. Use --dtype float16"),
        ({"dtype": "float32"}, r"in float16 alone.*found float32"),
        ({"load_format": "safetensors"}, "its weights are compressed, a folder for each rank"),
        ({"load_format": "dummy"}, "Use --load-format sparse_quant, or drop it"),
        ({"quantization": "compressed-tensors"}, "Drop --quantization: the files say it"),
        ({"kv_cache_dtype": "fp8"}, "kv_cache_dtype='fp8' is not supported"),
        ({"enable_lora": True}, "LoRA on a quantized checkpoint"),
    ],
)
def test_flags_that_contradict_the_files(made: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configure(made, **options)


def test_another_number_of_ranks(tmp_path: Path) -> None:
    compress(random_folder(tmp_path / "whole"), tmp_path / "made", 2)
    with pytest.raises(ValueError, match=r"made for 2 ranks.*tensor_parallel_size is 1.*convert"):
        configure(tmp_path / "made")


def test_plain_folders_are_not_compressed(tiny_model: Path, tmp_path: Path) -> None:
    for folder in (tiny_model, random_folder(tmp_path / "whole")):
        with pytest.raises(ValueError, match=r"its weights are not compressed.*compress them"):
            configure(folder, load_format="sparse_quant")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("model.safetensors", "a quantization tool made this checkpoint"),
        (
            "quant_model_weight_w8a8.safetensors",
            r"ModelSlim made this checkpoint.*its quant_model_description\.json is missing",
        ),
        (
            "quant-model-00001-of-00001.safetensors",
            r"Golden Stick made this checkpoint.*its quantization_description\.json is missing",
        ),
    ],
)
@pytest.mark.parametrize("asked", [None, "ascend"])
def test_a_description_that_was_left_behind(
    tmp_path: Path, file: str, message: str, asked: str | None
) -> None:
    """With a flag and without, before anything starts."""
    folder = random_folder(tmp_path / "whole")
    tensors = load_all(folder)
    for old in (*folder.glob("*.safetensors*"), *folder.glob("*description*.json")):
        old.unlink()
    save_file(tensors, folder / file)
    with pytest.raises(ValueError, match=f"{message}.*Copy it from the folder that the tool wrote"):
        configure(folder, quantization=asked)


def load_all(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a folder."""
    parts = [load_file(file) for file in sorted(folder.glob("*.safetensors"))]
    return {name: tensor for part in parts for name, tensor in part.items()}


@pytest.mark.parametrize(
    "options", [{}, {"quantization": "golden-stick"}, {"load_format": "sparse_quant"}]
)
def test_a_description_of_ranks_that_was_left_behind(
    made: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "made"))
    (folder / "quantization_description.json").unlink()
    message = r"rank_0: its weights are compressed \(W8A8SC\), a folder .* their quant.*missing"
    with pytest.raises(ValueError, match=message):
        configure(folder, **options)


def test_tensors_that_are_converted_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress(random_folder(tmp_path / "whole"), tmp_path / "made", 1)
    file = tmp_path / "made" / "rank_0" / "model-00002.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"model.norm.weight": tensors["model.norm.weight"].bfloat16()}, file)
    seen: list[str] = []
    monkeypatch.setattr(checkpoint_checks.logger, "info", lambda text, *a: seen.append(text % a))
    configure(tmp_path / "made")
    assert seen == [
        f"{tmp_path / 'made'}: rank 0: 1 tensors stored as BF16 are converted to F16: compressed "
        "weights (W8A8SC) are computed in float16 alone"
    ]
