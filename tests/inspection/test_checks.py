# SPDX-License-Identifier: Apache-2.0
"""What headers tell about a checkpoint that cannot be served, and what its loader would say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.inspection.folders import Stored, change_config, quantized, qwen2, write
from vllm_mindspore.inspection.checkpoint import read
from vllm_mindspore.inspection.checks import problems
from vllm_mindspore.inspection.layers import layers_of


def found(folder: Path) -> list[str]:
    checkpoint = read(folder)
    assert checkpoint.problems == []
    return list(problems(checkpoint, layers_of(checkpoint)))


Change = Callable[[Stored, dict[str, Any]], object]
UP, DOWN = "model.layers.1.mlp.up_proj", "model.layers.1.mlp.down_proj"
KEY = "model.layers.1.self_attn.k_proj"
QUERY = "model.layers.1.self_attn.q_proj"


def tensor(name: str, value: torch.Tensor) -> Change:
    return lambda stored, types: stored.update({name: value})


def without(name: str) -> Change:
    return lambda stored, types: (stored.pop(name, None), types.pop(name, None))


def label(name: str, kind: str) -> Change:
    return lambda stored, types: types.update(
        {tensor: kind for tensor in types if tensor.startswith(name)}
    )


def test_right_folders(tmp_path: Path) -> None:
    stored = qwen2(tmp_path)
    assert found(write(tmp_path, stored)) == []
    assert found(write(tmp_path, *quantized(stored))) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            without(f"{UP}.deq_scale"),
            [f"missing tensor {UP}.deq_scale: expected shape [24] or [24, 1]"],
        ),
        (
            tensor(f"{UP}.deq_scale", torch.ones(7)),
            [f"tensor {UP}.deq_scale: expected shape [24] or [24, 1], found [7]"],
        ),
        (
            tensor(f"{UP}.weight", torch.ones(24, 16)),
            [f"tensor {UP}.weight: expected dtype I8, found F32"],
        ),
        (
            tensor(f"{UP}.surprise", torch.ones(1)),
            [f"extra tensor {UP}.surprise: layers of this type have none"],
        ),
        (
            tensor("model.surprise", torch.ones(1)),
            ["extra tensor model.surprise: the model has no such weight"],
        ),
        (
            without("model.norm.weight"),
            ["missing tensor model.norm.weight: expected shape [16]"],
        ),
        (
            tensor("model.norm.weight", torch.ones(7)),
            ["tensor model.norm.weight: expected shape [16], found [7]"],
        ),
        (
            tensor("model.norm.weight", torch.ones(16, dtype=torch.int32)),
            ["tensor model.norm.weight: expected dtype F32/BF16/F16, found I32"],
        ),
        (
            without(f"{QUERY}.weight"),
            [f"missing tensor {QUERY}.weight: expected shape [16, 16]"],
        ),
        (
            without(f"{QUERY}.bias"),
            [f"missing tensor {QUERY}.bias: the model has a bias here"],
        ),
        (
            tensor("model.layers.1.self_attn.o_proj.bias", torch.ones(16)),
            ["extra tensor model.layers.1.self_attn.o_proj.bias: the model has no bias here"],
        ),
        (tensor(f"{DOWN}.bias", torch.ones(16)), []),  # ModelSlim's is folded
        (tensor("model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(2)), []),
        (
            lambda stored, types: types.update({"gone.weight": "W8A8"}),
            ["missing tensor gone.weight: quant_model_description.json says it is W8A8"],
        ),
    ],
)
def test_one_thing_is_wrong(tmp_path: Path, change: Change, expected: list[str]) -> None:
    stored, types = quantized(qwen2(tmp_path))
    change(stored, types)
    assert found(write(tmp_path, stored, types)) == expected


def test_layers_of_one_input_with_several_types(tmp_path: Path) -> None:
    stored, types = quantized(qwen2(tmp_path))
    label(UP, "W8A8_DYNAMIC")(stored, types)
    lines = found(write(tmp_path, stored, types))
    gate = UP.replace("up_proj", "gate_proj")
    (line,) = (line for line in lines if "one input" in line)
    assert f"({gate}: W8A8, {UP}: W8A8_DYNAMIC)" in line


def test_types_that_are_not_supported(tmp_path: Path) -> None:
    stored, types = quantized(qwen2(tmp_path))
    label(UP, "NF4")(stored, types)
    label(DOWN, "W4A4_X")(stored, types)
    lines = found(write(tmp_path, stored, types))
    for kind in ("NF4", "W4A4_X"):
        assert any(f"1 layers have the type '{kind}', which is not supp" in line for line in lines)


def test_layers_that_are_not_described(tmp_path: Path) -> None:
    stored, types = quantized(qwen2(tmp_path))
    types = {name: kind for name, kind in types.items() if not name.startswith(UP)}
    (line,) = found(write(tmp_path, stored, types))
    assert f"does not say what {UP} is: expected an entry {UP}.weight" in line


def test_tensors_of_a_module_with_several_types(tmp_path: Path) -> None:
    stored, types = quantized(qwen2(tmp_path))
    types[f"{UP}.deq_scale"] = "FLOAT"
    lines = found(write(tmp_path, stored, types))
    assert any(f"tensors of {UP} have several types" in line for line in lines)


def test_int8_caches(tmp_path: Path) -> None:
    stored, types = quantized(qwen2(tmp_path))
    for index in range(3):
        for part in "kv":
            name = f"model.layers.{index}.self_attn.{part}_proj"
            stored |= {f"{name}.kv_cache_{last}": torch.ones(8) for last in ("scale", "offset")}
    lines = found(write(tmp_path, stored, types))
    assert len(lines) == 12  # nothing says that they are meant
    assert f"extra tensor {KEY}.kv_cache_scale: layers of this type have none" in lines
    types["kv_cache_type"] = "C8"
    assert found(write(tmp_path, stored, types)) == []
    stored[f"{KEY}.kv_cache_scale"] = torch.ones(7)
    del stored[f"{KEY}.kv_cache_offset"]
    shapes = "[8] or [8, 1] or [1, 8] or [1]"
    assert found(write(tmp_path, stored, types)) == [
        f"tensor {KEY}.kv_cache_scale: expected shape {shapes}, found [7]",
        f"missing tensor {KEY}.kv_cache_offset: expected shape {shapes}",
    ]
    types["kv_cache_type"] = "C4"
    assert any("kv_cache_type is 'C4'" in line for line in found(write(tmp_path, stored, types)))


def test_decoders_without_a_head(tmp_path: Path) -> None:
    """As embedding models are stored: names without `model.`, no head."""
    change = qwen2(tmp_path)
    change_config(tmp_path, architectures=["Qwen2Model"])
    del change["lm_head.weight"]
    stored = {name.removeprefix("model."): value for name, value in change.items()}
    assert found(write(tmp_path, stored)) == []
    del stored["layers.0.mlp.up_proj.weight"]
    assert found(write(tmp_path, stored)) == [
        "missing tensor layers.0.mlp.up_proj.weight: expected shape [24, 16]"
    ]


def test_models_that_are_not_known(tmp_path: Path) -> None:
    """Quantized layers are checked by the sizes of their own weights."""
    stored, types = quantized(qwen2(tmp_path))
    stored[f"{UP}.deq_scale"] = torch.ones(7)
    change_config(tmp_path, architectures=["OtherForCausalLM"])
    checkpoint = read(write(tmp_path, stored, types))
    assert len(checkpoint.problems) == 1
    assert list(problems(checkpoint, layers_of(checkpoint))) == [
        f"tensor {UP}.deq_scale: expected shape [24] or [24, 1], found [7]"
    ]
