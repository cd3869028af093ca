# SPDX-License-Identifier: Apache-2.0
"""Folders are read as far as they can be; what cannot is a problem that names its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.inspection.folders import change_config, quantized, qwen2, write
from vllm_mindspore.inspection.checkpoint import read
from vllm_mindspore.quantization.description import Description


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path, *quantized(qwen2(tmp_path)))


def test_a_right_folder(folder: Path) -> None:
    found = read(folder)
    assert found.problems == []
    assert found.architecture == "Qwen2ForCausalLM"
    assert isinstance(found.quantization, Description)
    assert found.layout is not None
    assert found.tensors["model.norm.weight"].shape == (16,)
    assert set(found.places.values()) == {"model.safetensors"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"{", "config.json: expected a JSON object in UTF-8"),
        ("config.json", b"[" * 100_000, "config.json: .*nested too deep"),
        ("model.safetensors", b"x" * 40, "model.safetensors is not a valid safetensors file"),
        ("quant_model_description.json", b'{"a": 1}', "expected the name of a type, found int"),
        ("model.safetensors.index.json", b"{}", "weight_map must be a non-empty object"),
    ],
)
def test_what_is_broken_is_named_once(
    folder: Path, name: str, content: bytes, message: str
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        raise ValueError("\n".join(read(folder).problems))
    assert len(read(folder).problems) == 1


def test_a_broken_file_does_not_hide_the_others(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    save_file({"extra": torch.ones(2)}, folder / "b.safetensors")
    (folder / "b.safetensors").write_bytes((folder / "b.safetensors").read_bytes()[:-1])
    found = read(folder)
    assert [line for line in found.problems if "b.safetensors is not a valid" in line]
    assert "model.norm.weight" in found.tensors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["DeepseekV3ForCausalLM"]}, "'DeepseekV3ForCausalLM' is not served"),
        ({"architectures": None}, "the architecture '' is not served here; served: Ernie4_5"),
        ({"architectures": [7]}, "the architecture '7' is not served"),
        ({"hidden_act": "gelu"}, "config.json: hidden_act='gelu' is not supported"),
        ({"hidden_size": -1}, "config.json: hidden_size=-1 must be a positive integer"),
        ({"num_hidden_layers": 10**9}, "is more than any model has"),
        ({"model_type": "no such type"}, "config.json: .*no such type"),
        ({"model_type": None}, "config.json: .*None"),
        ({"rope_scaling": 7}, "config.json: "),
        ({"quantization_config": {"quant_method": "awq"}}, "ModelSlim made .*'awq'"),
        ({"quantization_config": 3}, "expected an object with quant_method, found 3"),
    ],
)
def test_models_that_are_not_served(folder: Path, changes: Any, message: str) -> None:
    change_config(folder, **changes)
    found = read(folder)
    assert found.tensors
    with pytest.raises(ValueError, match=message):
        raise ValueError("\n".join(found.problems))


def test_pooling_models_have_the_decoder_of_another(folder: Path) -> None:
    change_config(folder, architectures=["Qwen2ForSequenceClassification"])
    found = read(folder)
    assert found.problems == []
    assert found.pools
