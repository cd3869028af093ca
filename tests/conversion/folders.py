# SPDX-License-Identifier: Apache-2.0
"""Folders of W8A8 and W8A8S: random ones of any small model, and sparsified copies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from vllm_mindspore.conversion.whole import Model
from vllm_mindspore.model_executor.models.layout import Linear
from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.description import FLOAT, SPARSE, STATIC, Tool

DESCRIPTIONS = {
    Tool.GOLDEN_STICK: "quantization_description.json",
    Tool.MODELSLIM: "quant_model_description.json",
}
CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 96,
    "head_dim": 32,
    "intermediate_size": 320,
    "max_position_embeddings": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 100,
    "tie_word_embeddings": False,
    "dtype": "float16",
    "rms_norm_eps": 1e-6,
}


def random_folder(
    folder: Path,
    *,
    tool: Tool = Tool.GOLDEN_STICK,
    dtype: torch.dtype = torch.float16,
    kind: str = SPARSE,
    floats: tuple[str, ...] = (),
    head: bool = False,
    per_channel: bool = False,
    **config: Any,
) -> Path:
    """A folder of random numbers, half of the weights zero. `floats`: ends of names of layers that
    stay float; `head`: the head is W8A8; `per_channel`: scales of inputs differ by channel."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    (folder / "tokenizer.json").write_text("{}")
    model, rng = Model.of(folder), np.random.default_rng(0)
    tensors: dict[str, torch.Tensor] = {}
    types: dict[str, Any] = {}
    for name, shape in model.layout.floats.items():
        tensors[name], types[name] = _floats(rng, shape, dtype), FLOAT
        if "norm" in name:
            tensors[name] = tensors[name] + 1
    for group in model.layout.linears:
        scale, offset = _input(rng, group[0].in_features, tool, per_channel)
        for linear in group:
            is_head = linear.name == "lm_head"
            if linear.name.endswith(floats) or (is_head and not head):
                found, own = _float_linear(rng, linear, dtype), FLOAT
            else:
                found, own = _linear(rng, linear, tool), STATIC if is_head else kind
                found |= {"input_scale": scale.to(dtype), "input_offset": offset}
            for part, values in found.items():
                tensors[f"{linear.name}.{part}"] = values.contiguous().clone()
                types[f"{linear.name}.{part}"] = own
    save_file(tensors, folder / "model.safetensors")
    (folder / DESCRIPTIONS[tool]).write_text(json.dumps(types))
    return folder


def sparsified(source: Path, folder: Path, sparsity: float) -> Path:
    """A copy of a W8A8 folder of Golden Stick's form: the smallest weights zero, quant_bias anew,
    floats in float16."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors*", "quant*"))
    tensors = {}
    for file in source.glob("*.safetensors"):
        tensors |= load_file(file)
    types = json.loads((source / DESCRIPTIONS[Tool.GOLDEN_STICK]).read_text())
    for name, kind in types.items():
        module, _, last = name.rpartition(".")
        if kind == STATIC and module != "lm_head":
            types[name] = SPARSE
        if kind != STATIC or last != "weight":
            continue
        codes = tensors[name].numpy()
        if module != "lm_head":
            least = np.partition(np.abs(codes.astype(np.int16)), int(sparsity * codes.size), None)
            codes[np.abs(codes.astype(np.int16)) <= least[int(sparsity * codes.size)]] = 0
        offset = int(tensors[f"{module}.input_offset"][0])
        tensors[f"{module}.quant_bias"] = torch.from_numpy(primitives.folded_offset(codes, offset))
    half = {
        name: values.half() if values.is_floating_point() and "deq_scale" not in name else values
        for name, values in tensors.items()
    }
    save_file(
        {name: values.contiguous() for name, values in half.items()}, folder / "model.safetensors"
    )
    (folder / DESCRIPTIONS[Tool.GOLDEN_STICK]).write_text(json.dumps(types))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    return folder


def npu_coded(folder: Path, *, encoded: bool) -> Path:
    """Makes a compressed folder one as a vendor's tool writes it: random streams, indexes whose
    lengths add up, no codec. `encoded`: deq_scale as int64, with an upper half of random bits."""
    rng = np.random.default_rng(3)
    file = folder / DESCRIPTIONS[Tool.GOLDEN_STICK]
    content = json.loads(file.read_text())
    del content["codec"]
    if encoded:
        content["device_type"] = "310P"
    for place in folder.glob("rank_*/*.safetensors"):
        found, block = load_file(place), content[place.parent.name]
        for name in [name for name in found if name.endswith(".index")]:
            module = name.removesuffix(".index")
            lengths = rng.integers(1, 9, found[name].numel() // 8)
            entries = lengths | rng.integers(0, 1 << 50, len(lengths)) << 13
            stream = rng.integers(-128, 128, 128 * int(lengths.sum()), np.int8)
            found[name] = torch.from_numpy(entries.view(np.int8))
            found[f"{module}.weight"] = torch.from_numpy(stream)
            block[f"{module}.weight.shape"] = [len(stream)]
            del block[f"{module}.weight.crc32"]
            scale = primitives.encode_deq_scale(found[f"{module}.deq_scale"].numpy())
            scale |= rng.integers(-(1 << 31), 1 << 31, len(scale)) << 32
            if encoded:
                found[f"{module}.deq_scale"] = torch.from_numpy(scale)
        save_file(found, place)
    file.write_text(json.dumps(content))
    return folder


def rank_tensors(folder: Path, rank: int) -> dict[str, torch.Tensor]:
    """Of a compressed folder."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted((folder / f"rank_{rank}").glob("*.safetensors")):
        found |= load_file(file)
    return found


def change_rank(
    folder: Path, rank: int, name: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Tensor `name` of the first layer anew; one that is not there is given as an empty one."""
    file = folder / f"rank_{rank}" / "model-00000.safetensors"
    tensors = load_file(file)
    save_file(tensors | {name: change(tensors.get(name, torch.zeros(0)))}, file)


def whole_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Of an uncompressed folder."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def _floats(rng: np.random.Generator, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(rng.normal(0, 0.1, shape)).to(dtype)


def _input(
    rng: np.random.Generator, inner: int, tool: Tool, per_channel: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and offset, [K] from Golden Stick, [1] from ModelSlim; exact in every dtype."""
    size = inner if tool is Tool.GOLDEN_STICK else 1
    scale = np.full(size, 0.0625)
    if per_channel:
        scale = scale * 2.0 ** rng.integers(0, 3, size)
    offset = np.full(size, rng.integers(-20, 20))
    kind = torch.int8 if tool is Tool.GOLDEN_STICK else torch.float32
    return torch.from_numpy(scale), torch.from_numpy(offset).to(kind)


def _float_linear(
    rng: np.random.Generator, linear: Linear, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    found = {"weight": _floats(rng, (linear.out_features, linear.in_features), dtype)}
    if linear.bias:
        found["bias"] = _floats(rng, (linear.out_features,), dtype)
    return found


def _linear(rng: np.random.Generator, linear: Linear, tool: Tool) -> dict[str, torch.Tensor]:
    outer = linear.out_features
    codes = rng.integers(-128, 128, (outer, linear.in_features), dtype=np.int8)
    codes[rng.random(codes.shape) < 0.5] = 0
    found = {
        "weight": torch.from_numpy(codes),
        "deq_scale": torch.from_numpy(rng.uniform(1e-4, 1e-3, outer)).float(),
        "quant_bias": torch.from_numpy(rng.integers(-1000, 1000, outer)).int(),
        "weight_scale": torch.ones(outer if tool is Tool.GOLDEN_STICK else (outer, 1)),
    }
    if linear.bias:
        found["bias"] = _floats(rng, (outer,), torch.float16)
    return found
