# SPDX-License-Identifier: Apache-2.0
"""Weights in the coding of an NPU: a folder is loaded as on Atlas 300I Duo, and the graph that
would run there is exported. MindSpore's own inference, which needs no kernel, must accept it, and
parameters must be the bytes of the files. What the device computes of them, only it can tell."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn
from mindspore.ops.auto_generate import gen_ops_prim
from mindspore.train.mind_ir_pb2 import ModelProto

from tests.conversion.folders import npu_coded, random_folder, rank_tensors
from vllm_mindspore.conversion.convert import compress
from vllm_mindspore.conversion.whole import Model
from vllm_mindspore.device.soc import Device
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.model_loader import rank_files
from vllm_mindspore.model_executor.model_loader.quantization_files import read_description
from vllm_mindspore.model_executor.model_loader.safetensors import SafetensorsSource
from vllm_mindspore.model_executor.models import registry
from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.plan import plan_of
from vllm_mindspore.quantization.schemes.base import Projections
from vllm_mindspore.quantization.sharding import Rank
from vllm_mindspore.quantization.sparse_description import SparseDescription

HIDDEN, MAX_LENGTH = 96, 128
# Module of the files -> cell of the decoder.
MODULES = {
    "self_attn.qkv_proj": "attention.attention.qkv.merged",
    "self_attn.o_proj": "attention.attention.output",
    "mlp.gate_up_proj": "mlp.mlp.activation.gate_up",
    "mlp.down_proj": "mlp.mlp.down",
}
PARTS = {"weight": "stream", "index": "index", "deq_scale": "scale", "quant_bias": "quant_bias"}


class Loaded:
    """A folder of one rank, as a worker on `device` reads it."""

    def __init__(self, folder: Path, device: Device) -> None:
        found = read_description(folder)
        assert isinstance(found, SparseDescription)
        files = rank_files.select(found, 0)
        self.source = SafetensorsSource(files.folder, torch.float16, files=files)
        self.plan = plan_of(found, Rank(0, 1), device)


@pytest.fixture(params=[True, False], ids=["int64", "float32"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """In a coding that nothing here reads. deq_scale is int64, with bits in the upper half, or
    float32."""
    whole = random_folder(tmp_path / "whole", vocab_size=128, max_position_embeddings=MAX_LENGTH)
    compress(whole, tmp_path / "made", 1)
    return npu_coded(tmp_path / "made", encoded=request.param)


def exported(cell: nn.Cell, *inputs: object, file: Path) -> ModelProto:
    """The graph after inference."""
    ms.export(cell, *inputs, file_name=str(file), file_format="MINDIR")
    model = ModelProto()
    model.ParseFromString(file.with_suffix(".mindir").read_bytes())
    return model


def export_decoder(folder: Path, file: Path) -> ModelProto:
    """All decoder layers as a chain, tokens and blocks of any number."""
    loaded, model = Loaded(folder, Device.ASCEND_310P), Model.of(folder)
    builder = LayerBuilder(loaded.source, False, None, loaded.plan)
    model_class = registry.resolve(["Qwen3ForCausalLM"], pools=False)
    made = model_class(builder, model.hf_config, MAX_LENGTH)
    made.build_logits()
    loaded.source.finish()  # every tensor of the files is used, and no other needed
    row, table = Tensor(shape=[None], dtype=ms.int32), Tensor(shape=[None, None], dtype=ms.int32)
    attention = model.config.attention
    shape = [None, 16, attention.num_kv_heads, attention.head_dim]
    keys, values = (ms.mutable([Tensor(shape=shape, dtype=ms.float16)] * 2) for _ in range(2))
    return exported(made.decoder, row, row, row, table, row, row, keys, values, file=file)


def test_the_exported_decoder_has_the_bytes_of_the_files(folder: Path, tmp_path: Path) -> None:
    graph = export_decoder(folder, tmp_path / "graph").graph
    (output,) = (output.tensor[0] for output in graph.output)
    assert list(output.dims) == [-1, HIDDEN]
    assert output.data_type == output.FLOAT16
    kinds = [node.op_type.removeprefix("REF::").partition(":")[0] for node in graph.node]
    assert kinds.count("QuantLinearSparse") == len(MODULES) * 2
    found = {each.name.partition(":")[2]: each for each in graph.parameter}
    stored = rank_tensors(folder, 0)
    for layer in range(2):
        for module, cell in MODULES.items():
            for part, name in PARTS.items():
                values = stored[f"model.layers.{layer}.{module}.{part}"].numpy()
                if values.dtype == np.float32:
                    values = primitives.encode_deq_scale(values)
                parameter = found[f"layers.layers.{layer}.{cell}.streams.0.{name}"]
                assert list(parameter.dims) == list(values.shape)
                assert parameter.raw_data == values.tobytes()


def test_fused_kernels_do_not_take_them(folder: Path) -> None:
    asked = Projections(("model.layers.0.mlp.down_proj",), 320, (HIDDEN,))
    loaded = Loaded(folder, Device.ASCEND_310P)
    found = loaded.plan.scheme(asked.names).parameters(loaded.source, asked)
    with pytest.raises(ValueError, match="the primitive chain alone computes weights in an NPU's"):
        found.fused()


def test_a_plan_for_another_device(folder: Path) -> None:
    for device in (Device.CPU, Device.ASCEND_910B):
        with pytest.raises(ValueError, match="its bit coding is not public"):
            Loaded(folder, device)


class Sparse(nn.Cell):
    """The primitive alone."""

    def __init__(self) -> None:
        super().__init__()
        self.primitive = gen_ops_prim.QuantLinearSparse()

    def construct(
        self, codes: Tensor, stream: Tensor, scale: Tensor, index: Tensor, bias: Tensor
    ) -> Tensor:
        """codes int8 [T, K] -> float16 [T, N]."""
        return self.primitive(codes, stream, scale, index, bias)


def test_inference_refuses_what_the_device_would(tmp_path: Path) -> None:
    """So that an export that passes says something."""
    codes = Tensor(shape=[None, HIDDEN], dtype=ms.int8)
    bytes_, bias = Tensor(np.zeros(128, np.int8)), Tensor(np.zeros(HIDDEN, np.int32))

    def export(dtype: type[np.generic]) -> ModelProto:
        scale = Tensor(np.zeros(HIDDEN, dtype))
        given = (codes, bytes_, scale, bytes_, bias)
        return exported(Sparse(), *given, file=tmp_path / dtype.__name__)

    (output,) = export(np.int64).graph.output
    assert list(output.tensor[0].dims) == [-1, HIDDEN]
    with pytest.raises(TypeError, match=r"QuantLinearSparse.*Int64"):
        export(np.float32)
