# SPDX-License-Identifier: Apache-2.0
"""Quantized folders in vLLM's real configuration path: recognised, or refused with a message."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from vllm import LLM

from tests.quantization import compressed
from tests.test_config_checks import NOT_SUPPORTED, configure

COMPRESSED = compressed.quantization_config(compressed.config([(["Linear"], compressed.DYNAMIC)]))
GOLDEN_STICK, MODELSLIM = "quantization_description.json", "quant_model_description.json"


@pytest.fixture
def described(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """The tiny model with a description file: every tensor is float, but for `changes`."""

    def make(name: str, **changes: str) -> Path:
        folder = Path(shutil.copytree(tiny_model, tmp_path / "described"))
        with safe_open(folder / "model.safetensors", "np") as file:
            types = dict.fromkeys(file.keys(), "FLOAT")
        (folder / name).write_text(json.dumps(types | changes))
        return folder

    return make


def change_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("asked", ["golden-stick", "golden_stick", "SmoothQuant", "ascend"])
def test_quantization_of_plain_weights_is_refused(tiny_model: Path, asked: str) -> None:
    message = f"quantization='{asked.lower()}', but .*none of the description files.*are plain"
    with pytest.raises(ValueError, match=message):
        configure(tiny_model, quantization=asked)


def test_quantization_of_config_json_needs_a_description(tiny_model: Path) -> None:
    override = {"quantization_config": {"quant_method": "golden-stick"}}
    with pytest.raises(ValueError, match=r"quant_method 'golden-stick', but .*none of the desc"):
        configure(tiny_model, hf_overrides=override)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (None, GOLDEN_STICK),
        (None, MODELSLIM),
        ("golden-stick", GOLDEN_STICK),
        ("Golden_Stick", GOLDEN_STICK),
        ("SmoothQuant", GOLDEN_STICK),
        ("SMOOTHQUANT", MODELSLIM),
        ("ascend", MODELSLIM),
    ],
)
def test_descriptions_are_recognised(
    described: Callable[..., Path], asked: str | None, name: str
) -> None:
    config = configure(described(name), quantization=asked)
    assert config.model_config.quantization == (asked.lower() if asked else None)


@pytest.mark.parametrize("asked", [None, "golden-stick", "SmoothQuant"])
def test_config_json_may_repeat_the_tool(described: Callable[..., Path], asked: str | None) -> None:
    folder = described(GOLDEN_STICK)
    change_config(folder, quantization_config={"quant_method": "golden-stick"})
    found = configure(folder, quantization=asked).model_config.quantization
    assert found == (asked or "golden-stick").lower()


@pytest.mark.parametrize(("asked", "name"), [("ascend", GOLDEN_STICK), ("golden-stick", MODELSLIM)])
def test_a_flag_that_contradicts_the_files_is_refused(
    described: Callable[..., Path], asked: str, name: str
) -> None:
    with pytest.raises(ValueError, match=f"quantization='{asked}', but .*{name} was written by"):
        configure(described(name), quantization=asked)


def test_a_type_that_is_not_supported_is_refused(described: Callable[..., Path]) -> None:
    folder = described(GOLDEN_STICK, **{"model.layers.0.mlp.up_proj.weight": "W4A8_DYNAMIC"})
    with pytest.raises(ValueError, match="up_proj has the type 'W4A8_DYNAMIC'; supported: FLOAT"):
        configure(folder)


def test_weights_alone_are_not_computed_in_float32(described: Callable[..., Path]) -> None:
    folder = described(GOLDEN_STICK, **{"model.layers.0.mlp.down_proj.weight": "W8A16"})
    assert configure(folder, dtype="float16").model_config.dtype == torch.float16
    message = "W8A16 are computed in bfloat16 or float16; found float32. Use --dtype bfloat16"
    with pytest.raises(ValueError, match=message):
        configure(folder, dtype="float32")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"int8 key/value cache \(C8\).*found dtype float32"),
        ({"dtype": "float16", "kv_cache_dtype": "float16"}, r"scales of an int8 cache \(C8\)"),
        ({"dtype": "float16", "kv_cache_dtype": "int8_per_token_head"}, "scales of an int8 cache"),
    ],
)
def test_what_contradicts_an_int8_cache_is_refused(
    described: Callable[..., Path], arguments: dict[str, Any], message: str
) -> None:
    folder = described(MODELSLIM, kv_cache_type="C8")
    with pytest.raises(ValueError, match=message):
        configure(folder, **({"dtype": "float32"} | arguments))


def test_an_int8_cache_comes_with_the_checkpoint(described: Callable[..., Path]) -> None:
    folder = described(MODELSLIM, kv_cache_type="C8")
    assert configure(folder, dtype="bfloat16").cache_config.cache_dtype == "auto"


@pytest.mark.parametrize("key", ["fa_quant_type", "reduce_quant_type"])
def test_keys_that_nothing_reads_are_refused(described: Callable[..., Path], key: str) -> None:
    folder = described(MODELSLIM, **{key: "INT8"})
    with pytest.raises(ValueError, match=f"{key} is 'INT8'.*not supported by vllm-mindspore"):
        configure(folder)


def test_layers_of_one_input_have_one_type(described: Callable[..., Path]) -> None:
    folder = described(GOLDEN_STICK, **{"model.layers.0.mlp.up_proj.weight": "W8A8"})
    with pytest.raises(ValueError, match=r"0.mlp.gate_proj: FLOAT, .*up_proj: W8A8.*quantize them"):
        configure(folder)


@pytest.mark.parametrize("asked", [None, "compressed-tensors", "Compressed-Tensors"])
def test_compressed_tensors_is_recognised(
    tiny_model: Path, tmp_path: Path, asked: str | None
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    change_config(folder, quantization_config=COMPRESSED)
    config = configure(folder, quantization=asked)
    assert config.model_config.quantization == "compressed-tensors"


@pytest.mark.parametrize("asked", ["ascend", "golden-stick", "SmoothQuant"])
def test_ascend_flags_contradict_compressed_tensors(
    tiny_model: Path, tmp_path: Path, asked: str
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    change_config(folder, quantization_config=COMPRESSED)
    message = f"quantization='{asked.lower()}', but .*'compressed-tensors'. Drop --quantization"
    with pytest.raises(ValueError, match=message):
        configure(folder, quantization=asked)


@pytest.mark.parametrize("name", [GOLDEN_STICK, MODELSLIM])
def test_compressed_tensors_contradicts_descriptions(
    described: Callable[..., Path], name: str
) -> None:
    with pytest.raises(ValueError, match=f"'compressed-tensors', but .*{name} was written by"):
        configure(described(name), quantization="compressed-tensors")


def test_what_compressed_tensors_has_besides_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    change_config(folder, quantization_config=COMPRESSED | {"format": "float-quantized"})
    with pytest.raises(ValueError, match=f"{folder}/config.json: .*='float-quantized' is not"):
        configure(folder)


# The next ones are questions that users of Ascend tools ask, through LLM() itself.


@pytest.mark.parametrize("asked", [None, "ascend"])
def test_fp8_fields_left_in_config_json(described: Callable[..., Path], asked: str | None) -> None:
    folder = described(MODELSLIM)
    fp8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
    change_config(folder, quantization_config=fp8)
    message = r"ModelSlim made this.* quant_method 'fp8', which.*Remove quantization_config from"
    with pytest.raises(ValueError, match=message):
        LLM(str(folder), quantization=asked)


def test_code_that_the_tool_did_not_copy(described: Callable[..., Path]) -> None:
    folder = described(MODELSLIM)
    change_config(folder, auto_map={"AutoConfig": "configuration_deepseek.DeepseekV3Config"})
    message = "has no 'configuration_deepseek.py': ModelSlim did not copy it. Copy it from"
    with pytest.raises(ValueError, match=message):
        LLM(str(folder), trust_remote_code=True)


def test_code_is_not_needed_where_it_is_not_run(described: Callable[..., Path]) -> None:
    folder = described(MODELSLIM)
    change_config(folder, auto_map={"AutoConfig": "configuration_deepseek.DeepseekV3Config"})
    configure(folder)
    change_config(folder, auto_map={"AutoModelForCausalLM": "modeling_deepseek.Model"})
    configure(folder, trust_remote_code=True)


def test_names_of_fused_layers(described: Callable[..., Path]) -> None:
    """Elsewhere a KeyError `...q_proj.weight`."""
    folder = described(MODELSLIM)
    types = json.loads((folder / MODELSLIM).read_text())
    fused = {re.sub("[qkv]_proj", "qkv_proj", name): kind for name, kind in types.items()}
    (folder / MODELSLIM).write_text(json.dumps(fused))
    message = "what model.layers.0.self_attn.q_proj is: but names .*qkv_proj: ModelSlim wrote it"
    with pytest.raises(ValueError, match=message):
        LLM(str(folder))


def test_a_description_of_another_model(described: Callable[..., Path]) -> None:
    folder = described(GOLDEN_STICK)
    types = json.loads((folder / GOLDEN_STICK).read_text())
    del types["model.layers.3.mlp.down_proj.weight"]
    (folder / GOLDEN_STICK).write_text(json.dumps(types))
    message = "what model.layers.3.mlp.down_proj is: expected an entry .*or Golden Stick did not"
    with pytest.raises(ValueError, match=message):
        LLM(str(folder))


def test_a_float_checkpoint_with_a_flag(tiny_model: Path) -> None:
    """Elsewhere a KeyError `...q_proj.weight`."""
    with pytest.raises(ValueError, match=r"quantization='ascend', but .* its weights are plain"):
        LLM(str(tiny_model), quantization="ascend")


def test_adapters_on_quantized_layers_are_refused(described: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=f"LoRA on a quantized checkpoint.*{NOT_SUPPORTED}"):
        configure(described(MODELSLIM), enable_lora=True)
