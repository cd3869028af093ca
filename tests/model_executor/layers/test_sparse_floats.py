# SPDX-License-Identifier: Apache-2.0
"""Layers of compressed folders that stayed float: a tensor of a fused module, or of a row-parallel
layer whose bias other ranks add. The primitive chain computes them as fused kernels do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from mindspore import nn

from tests.conversion.folders import random_folder, rank_tensors
from tests.model_executor.layers.weights import check, tensor, varying
from vllm_mindspore.conversion.convert import compress
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.layers.linear import Linear, build_linear, build_merged
from vllm_mindspore.model_executor.model_loader import rank_files
from vllm_mindspore.model_executor.model_loader.quantization_files import read_description
from vllm_mindspore.model_executor.model_loader.safetensors import SafetensorsSource
from vllm_mindspore.quantization.sharding import Rank
from vllm_mindspore.quantization.sparse_description import SparseDescription
from vllm_mindspore.quantization.sparse_plan import SparsePlan

LAYER, RANKS, DTYPE = "model.layers.0", 2, torch.float16
FLOATS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj")
QWEN2: dict[str, Any] = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}


class Layer(NamedTuple):
    """One rank's part of a fused module of tests/conversion/folders.py."""

    module: str
    names: Sequence[str]
    in_features: int
    out_features: Sequence[int]
    bias: bool = False


LAYERS = [
    Layer("self_attn.qkv_proj", ["q_proj", "k_proj", "v_proj"], 96, [64, 32, 32], bias=True),
    Layer("mlp.gate_up_proj", ["gate_proj", "up_proj"], 96, [160, 160]),
    Layer("mlp.down_proj", ["down_proj"], 160, [96]),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two ranks; o_proj alone is compressed, the projections of attention have biases."""
    place = tmp_path_factory.mktemp("floats")
    compress(random_folder(place / "whole", floats=FLOATS, **QWEN2), place / "made", RANKS)
    return place / "made"


def built(folder: Path, rank: Rank, layer: Layer, *, fused: bool) -> nn.Cell:
    """The layer as a worker of this rank builds it."""
    found = read_description(folder)
    assert isinstance(found, SparseDescription)
    files = rank_files.select(found, rank.index)
    source = SafetensorsSource(files.folder, DTYPE, files=files)
    builder = LayerBuilder(source, fused, quantization=SparsePlan(found, rank), rank=rank)
    parent = f"{LAYER}.{layer.module.partition('.')[0]}"
    names, inner = [f"{parent}.{name}" for name in layer.names], layer.in_features
    if len(names) == 1:
        return build_linear(builder, names[0], inner, layer.out_features[0])
    return build_merged(builder, names, inner, layer.out_features, bias=layer.bias)


@pytest.mark.parametrize("index", range(RANKS))
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.module)
def test_chain_and_kernels_compute_the_product(folder: Path, index: int, layer: Layer) -> None:
    rank = Rank(index, RANKS)
    chain, fused = (built(folder, rank, layer, fused=fused) for fused in (False, True))
    assert isinstance(chain, Linear)
    stored = rank_tensors(folder, index)
    x = torch.randn(3, layer.in_features).to(DTYPE)
    expected = x.double() @ stored[f"{LAYER}.{layer.module}.weight"].double().T
    if layer.bias:
        expected = expected + stored[f"{LAYER}.{layer.module}.bias"].double()
    for cell in (chain, fused):
        cell.set_inputs(varying(x))
        check(cell(tensor(x)), expected, DTYPE, 1 + layer.bias)
