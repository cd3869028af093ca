# SPDX-License-Identifier: Apache-2.0
"""Reports on folders that Golden Stick wrote, that llm-compressor writes, and on float ones."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from tests.e2e.checkpoints import SPECS, write_checkpoint
from tests.hostile import fuzz
from tests.inspection.folders import change_config, quantized, qwen2, write
from tests.quantization import compressed
from vllm_mindspore.inspection.report import as_json, as_text, inspect

FIXTURES = ROOT / "tests" / "fixtures" / "golden_stick_1.4.1"


def test_a_float_model(tiny_model: Path) -> None:
    report = inspect(tiny_model)
    assert report.problems == []
    assert report.types == {"FLOAT": 46}
    assert (report.flag, report.sizes.quantized) == ("", 0)
    assert report.sizes.total == report.sizes.floats == 7083008
    text = as_text(report)
    assert "written by     none: float weights\n" in text
    assert "model.layers.0-3.mlp.gate_proj|up_proj" in text
    assert text.endswith("\nNo problems found.")


def test_a_description_that_was_left_behind(tmp_path: Path) -> None:
    write(tmp_path, quantized(qwen2(tmp_path))[0])
    report = inspect(tmp_path)
    assert (
        "made this checkpoint (model.layers.0.mlp.down_proj.weight is int8)" in report.problems[0]
    )
    assert "written by     unclear (the description file is missing)" in as_text(report)


@pytest.mark.parametrize(
    ("name", "type_", "scales"),
    [
        ("none", "W8A8", {"deq_scale", "input_scale", "weight_scale"}),
        ("w8", "W8A16", {"weight_scale"}),
        ("w4", "W4A16", {"weight_scale"}),
    ],
)
def test_the_networks_of_golden_sticks_files_are_toys(
    tmp_path: Path, name: str, type_: str, scales: set[str]
) -> None:
    """They have other names and sizes than any model that a config.json could mean."""
    folder = Path(shutil.copytree(FIXTURES / name, tmp_path / name))
    (folder / "config.json").write_text(json.dumps(TOY))
    file = folder / "quant-model-00001-of-00001.safetensors"
    (folder / "quantization_description.json").write_text(json.dumps(toy_types(file, type_)))
    report = inspect(folder)
    assert (report.tool, report.flag) == ("Golden Stick", "golden-stick")
    assert report.types[type_] >= 12
    assert set(report.ranges) == scales
    assert "missing tensor model.embed_tokens.weight: expected shape [128, 64]" in report.problems
    assert "extra tensor model.embed: the model has no such weight" in report.problems
    assert "It cannot be served, " in as_text(report)


TOY = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 128,
    "tie_word_embeddings": False,
}


def toy_types(file: Path, kind: str) -> dict[str, str]:
    """As the tool labels them; down projections of static networks are dynamic."""
    data = file.read_bytes()
    names = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    types = {}
    for name in names:
        dynamic = kind == "W8A8" and "down_proj" in name
        quantized = "_proj" in name
        types[name] = ("W8A8_DYNAMIC" if dynamic else kind) if quantized else "FLOAT"
    del types["__metadata__"]
    return types


def test_compressed_tensors(tmp_path: Path) -> None:
    folder = write_checkpoint(SPECS["qwen2"], tmp_path / "float", torch.float32)
    config = compressed.config([(["Linear"], compressed.ZERO_POINT)])
    made = compressed.Compressed(folder, config, [[1, 2, 3]], torch.bfloat16)
    report = inspect(made.write(tmp_path / "compressed"))
    assert report.problems == []
    assert (report.tool, report.flag) == ("llm-compressor", "compressed-tensors")
    assert report.types["W8A8"] == 21
    assert set(report.ranges) == {"input_scale", "weight_scale"}
    assert 0 < report.sizes.quantized < report.sizes.total


def test_kv_cache_of_modelslim(tmp_path: Path) -> None:
    stored, types = quantized(qwen2(tmp_path))
    report = inspect(write(tmp_path, stored, types))
    assert report.kv_cache == "dtype of the model"
    assert inspect(write(tmp_path, stored, types | {"kv_cache_type": "C8"})).kv_cache == "C8"


@pytest.mark.parametrize("scheme", ["quant_method", "kv_cache_scheme"])
def test_formats_that_are_not_read(tmp_path: Path, scheme: str) -> None:
    """One problem: what the other tensors should be is not known."""
    write(tmp_path, quantized(qwen2(tmp_path))[0])
    config = compressed.quantization_config(compressed.config([(["Linear"], compressed.DYNAMIC)]))
    config |= {"quant_method": "awq"} if scheme == "quant_method" else {scheme: {"num_bits": 8}}
    change_config(tmp_path, quantization_config=config)
    report = inspect(tmp_path)
    method = config["quant_method"]
    assert report.tool == f"unclear (quantization_config has quant_method {method!r})"
    (problem,) = report.problems
    assert "'awq', which is not read here" in problem or "kv_cache_scheme={" in problem
    assert report.types["?"] == 9


def test_json_has_all_of_it(tmp_path: Path) -> None:
    stored, types = quantized(qwen2(tmp_path))
    stored.pop("model.norm.weight")
    fields = json.loads(json.dumps(as_json(inspect(write(tmp_path, stored, types)))))
    assert fields["folder"] == str(tmp_path)
    assert fields["types"]["W8A8"] == 9
    assert fields["sizes"]["total"] == sum(tensor.nbytes for tensor in stored.values())
    (row,) = (row for row in fields["layers"] if row["name"].endswith("mlp.gate_proj|up_proj"))
    assert (row["count"], row["type"]) == (6, "W8A8")
    assert row["tensors"]["weight"] == {"dtype": "I8", "shape": [24, 16]}
    assert fields["ranges"]["deq_scale"] == {"tensors": 9, "least": 1.0, "largest": 1.0}
    assert "missing tensor model.norm.weight: expected shape [16]" in fields["problems"]


def test_what_cannot_be_printed_is_escaped(tmp_path: Path) -> None:
    stored, types = quantized(qwen2(tmp_path))
    types["model.norm.weight"] = "\x1b[31mred\ud800\n"
    change_config(tmp_path, model_type="\x1b]0;title\x07")
    text = as_text(inspect(write(tmp_path, stored, types)))
    assert "\x1b" not in text
    assert "\x07" not in text
    text.encode()


def test_mutated_weights_never_end_it(tmp_path: Path) -> None:
    for number in range(300):
        fuzz.write(tmp_path, number)
        report = inspect(tmp_path)
        assert report.problems
        json.dumps(as_json(report))
        as_text(report).encode()


@pytest.mark.parametrize("name", ["config.json", "quant_model_description.json"])
def test_mutated_json_never_ends_it(tmp_path: Path, name: str) -> None:
    write(tmp_path, *quantized(qwen2(tmp_path)))
    right = (tmp_path / name).read_bytes()
    for number in range(150):
        rng = random.Random(number)
        (tmp_path / name).write_bytes(rng.choice(fuzz.MUTATIONS[:5])(rng, right))
        report = inspect(tmp_path)
        json.dumps(as_json(report))
        as_text(report).encode()
