# SPDX-License-Identifier: Apache-2.0
"""What can be quantized, and what is refused by name before anything starts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.quantization.ptq.conftest import FloatFolder
from vllm_mindspore.quantization.ptq.float_checkpoint import FloatCheckpoint

_INT8 = {"num_bits": 8, "type": "int", "symmetric": True}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {**_INT8, "strategy": "channel"},
            "input_activations": {**_INT8, "strategy": "token", "dynamic": True},
        }
    },
}


@pytest.fixture
def copied(float_folder: FloatFolder, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(float_folder("qwen3"), tmp_path / "model"))


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_tensors_as_float32(float_folder: FloatFolder) -> None:
    folder = float_folder("qwen3", torch.bfloat16)
    found = FloatCheckpoint(folder)
    stored = load_file(folder / "model.safetensors")
    assert found.dtype == torch.bfloat16
    assert found.names == sorted(stored)
    name = "model.layers.0.self_attn.q_proj.weight"
    values = found.single(name, (240, 96))
    np.testing.assert_array_equal(values, stored[name].float())
    values[:] = 0  # a copy
    assert found.any(name).abs().sum() > 0
    ids = np.array([3, 3, 500], np.int32)
    expected = stored["model.embed_tokens.weight"].float()[ids.tolist()]
    np.testing.assert_array_equal(found.rows(ids), expected)
    assert found.num_bytes() == sum(tensor.nbytes for tensor in stored.values())
    assert found.head_name == "model.embed_tokens.weight"  # tied, though the file repeats it


def test_the_state_changes_with_the_files(copied: Path) -> None:
    before = FloatCheckpoint(copied).state()
    assert set(before) == {"config.json", "model.safetensors"}
    edit_config(copied, note=1)
    assert FloatCheckpoint(copied).state() != before


def test_quantized_folders_are_refused(copied: Path) -> None:
    edit_config(copied, quantization_config={"quant_method": "fp8"})
    with pytest.raises(ValueError, match=r"quant_method 'fp8'.*Take the float checkpoint"):
        FloatCheckpoint(copied)
    edit_config(copied, quantization_config=COMPRESSED)
    with pytest.raises(ValueError, match=r"quantized already: config\.json has a quantization_con"):
        FloatCheckpoint(copied)
    edit_config(copied, quantization_config=None)
    (copied / "quantization_description.json").write_text('{"a.weight": "W8A8"}')
    with pytest.raises(ValueError, match=r"quantized already: quantization_description\.json"):
        FloatCheckpoint(copied)


def test_other_models_are_refused(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no folder; download"):
        FloatCheckpoint(tmp_path / "none")
    edit_config(copied, architectures=["OPTForCausalLM"])
    with pytest.raises(ValueError, match=r"OPTForCausalLM.*not supported; supported: Ernie"):
        FloatCheckpoint(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.layers.1.mlp.up_proj.weight"), r"missing tensor .*1\.mlp\.up_proj"),
        (
            lambda t: t.update({"model.layers.0.mlp.up_proj.weight": torch.zeros(200, 95)}),
            r"up_proj.weight: expected shape \[200, 96\], found \[200, 95\]",
        ),
        (
            lambda t: t.update({"model.embed_tokens.weight": torch.zeros(512, 96).char()}),
            "embed_tokens.weight: expected float32, bfloat16 or float16, found I8",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    change: Callable[[dict[str, torch.Tensor]], Any], message: str, copied: Path
) -> None:
    edit_tensors(copied, change)
    with pytest.raises(ValueError, match=message):
        FloatCheckpoint(copied)


def test_values_that_are_not_finite_are_refused_when_they_are_read(copied: Path) -> None:
    name = "model.layers.0.input_layernorm.weight"

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name][3] = torch.nan

    edit_tensors(copied, spoil)
    with pytest.raises(ValueError, match=f"{name} has values that are not finite"):
        FloatCheckpoint(copied).single(name, (96,))
