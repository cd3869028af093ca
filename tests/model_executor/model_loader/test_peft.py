# SPDX-License-Identifier: Apache-2.0
"""Adapter folders: what is read from them, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from vllm.config import LoRAConfig

from tests.model_executor.model_loader.adapters import write_adapter
from vllm_mindspore.model_executor.model_loader.adapter_slots import AdapterMatrices
from vllm_mindspore.model_executor.model_loader.peft import CONFIG, WEIGHTS, load_adapter

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"
SHAPES = {Q: (16, 24), DOWN: (32, 16)}
A = f"base_model.model.{Q}.lora_A.weight"


def load(folder: Path, max_rank: int = 16) -> dict[str, AdapterMatrices]:
    config = LoRAConfig(max_lora_rank=max_rank)
    return load_adapter(folder, SHAPES, config, torch.float32)


@pytest.mark.parametrize(
    ("settings", "scaling"),
    [({}, 2.0), ({"use_rslora": True}, 4.0), ({"alpha_pattern": {"q_proj": 12}}, 3.0)],
)
def test_values_and_scaling(tmp_path: Path, settings: dict[str, object], scaling: float) -> None:
    folder = write_adapter(tmp_path, SHAPES, rank=4, alpha=8, **settings)
    stored = load_file(folder / WEIGHTS)
    found = load(folder)
    assert found.keys() == SHAPES.keys()
    assert torch.equal(found[Q].a, stored[A])
    assert torch.equal(found[Q].b, scaling * stored[A.replace("_A", "_B")])


def test_layers_may_be_left_out(tmp_path: Path) -> None:
    assert load(write_adapter(tmp_path, {Q: SHAPES[Q]})).keys() == {Q}


def change(folder: Path, name: str, tensor: torch.Tensor | None) -> Path:
    """The folder with one tensor changed, added or (None) removed."""
    tensors = load_file(folder / WEIGHTS)
    tensors.pop(name, None)
    if tensor is not None:
        tensors[name] = tensor
    save_file(tensors, folder / WEIGHTS)
    return folder


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        (A, None, rf"missing tensor {Q}\.lora_A\.weight: expected shape \[4, 16\]"),
        (A, torch.zeros(4, 15), r"lora_A\.weight: expected shape \[4, 16\], found \[4, 15\]"),
        (A, torch.full((4, 16), float("nan")), r"expected finite numbers, found NaN"),
        (A.replace("q_proj", "x_proj"), torch.zeros(1), "the model has no linear layer"),
        ("base_model.model.lm_head.weight", torch.zeros(1), "only lora_A and lora_B"),
        ("base_model.model.embed_tokens.lora_embedding_A", torch.zeros(1), "only lora_A"),
    ],
)
def test_tensors_that_do_not_fit(
    tmp_path: Path, name: str, tensor: torch.Tensor | None, message: str
) -> None:
    folder = change(write_adapter(tmp_path, SHAPES), name, tensor)
    with pytest.raises(ValueError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"lora_bias": True}, "LoRA bias"),
    ],
)
def test_settings_that_are_refused(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=f"{CONFIG}: .*{message}"):
        load(write_adapter(tmp_path, SHAPES, **settings))


def test_a_rank_above_the_limit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rank 32 is greater than max_lora_rank 16"):
        load(write_adapter(tmp_path, SHAPES, rank=32))


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"not a PEFT adapter folder: cannot read {CONFIG}"):
        load(tmp_path / "nowhere")
    (tmp_path / CONFIG).write_text("{")
    with pytest.raises(ValueError, match=CONFIG):
        load(tmp_path)
    (tmp_path / CONFIG).write_text(json.dumps({"r": 4, "lora_alpha": 8, "target_modules": []}))
    with pytest.raises(ValueError, match=r"safetensors does not exist.*pickle files are not read"):
        load(tmp_path)
    save_file({}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match="holds no tensors"):
        load(tmp_path)
