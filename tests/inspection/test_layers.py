# SPDX-License-Identifier: Apache-2.0
"""Modules with their types, and equal ones in one row."""

from __future__ import annotations

from pathlib import Path

from tests.inspection.folders import change_config, quantized, qwen2, write
from tests.quantization import compressed
from vllm_mindspore.inspection.checkpoint import read
from vllm_mindspore.inspection.layers import Layer, fold, layers_of
from vllm_mindspore.model_executor.model_loader.safetensors_header import TensorInfo


def layer(name: str, kind: str = "FLOAT", size: int = 4) -> Layer:
    return Layer(name, kind, {"weight": TensorInfo("F32", (size,), 0, 4 * size)})


def names(*layers: Layer) -> list[tuple[str, int]]:
    return [(row.name, row.count) for row in fold(layers)]


def test_rows() -> None:
    assert names(*(layer(f"l.{i}.up") for i in range(3))) == [("l.0-2.up", 3)]
    assert names(*(layer(f"l.{i}.up") for i in (0, 1, 2, 4, 9, 10))) == [("l.0-2,4,9-10.up", 6)]
    alike = [layer(f"l.{i}.{last}") for i in range(2) for last in ("gate", "up")]
    assert names(*alike) == [("l.0-1.gate|up", 4)]
    assert names(layer("l.0.up"), layer("l.1.up", "W8A8")) == [("l.0.up", 1), ("l.1.up", 1)]
    assert names(layer("l.0.up"), layer("l.1.up", size=8)) == [("l.0.up", 1), ("l.1.up", 1)]
    experts = [layer(f"l.{i}.e.{j}.up") for i in range(2) for j in range(3)]
    assert names(*experts) == [("l.0-1.e.0-2.up", 6)]


def test_types_of_a_description_in_natural_order(tmp_path: Path) -> None:
    stored, types = quantized(qwen2(tmp_path))
    del types["model.norm.weight"]
    found = layers_of(read(write(tmp_path, stored, types)))
    kinds = {layer.name: layer.type for layer in found}
    assert kinds["model.layers.2.mlp.up_proj"] == "W8A8"
    assert kinds["model.layers.2.self_attn.q_proj"] == "FLOAT"
    assert kinds["model.norm"] == "not described"
    order = [layer.name for layer in found]
    assert order.index("model.layers.0.mlp.up_proj") < order.index("model.layers.1.mlp.up_proj")
    assert len(order) == len(set(order))
    assert sum(layer.num_bytes for layer in found) == sum(t.nbytes for t in stored.values())


def test_types_of_compressed_tensors(tmp_path: Path) -> None:
    write(tmp_path, qwen2(tmp_path))
    groups = [(["re:.*mlp.*"], compressed.STATIC), (["Linear"], compressed.DYNAMIC)]
    config = compressed.quantization_config(compressed.config(groups))
    change_config(tmp_path, quantization_config=config)
    kinds = {layer.name: layer.type for layer in layers_of(read(tmp_path))}
    assert kinds["model.layers.0.mlp.up_proj"] == "W8A8"
    assert kinds["model.layers.0.self_attn.q_proj"] == "W8A8_DYNAMIC"
    for name in ("lm_head", "model.norm", "model.embed_tokens", "model.layers.0.input_layernorm"):
        assert kinds[name] == "FLOAT"
