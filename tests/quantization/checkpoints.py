# SPDX-License-Identifier: Apache-2.0
"""Quantized copies of float checkpoints, and what transformers computes with their tensors.

The reference keeps transformers' model and replaces its linear layers by the arithmetic of
quantization/primitives.py, so it shares nothing with loader, graph and kernels.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.quantization import int8_cache, weight_only
from tests.quantization.int8_cache import Scales
from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.description import (
    DYNAMIC,
    FLOAT,
    HALF_ONLY,
    STATIC,
    WEIGHT_INT4,
    WEIGHT_INT8,
    Tool,
)
from vllm_mindspore.quantization.primitives import activation_scale
from vllm_mindspore.quantization.ptq import linears
from vllm_mindspore.quantization.ptq.linears import Linear, Tensors
from vllm_mindspore.quantization.sharding import Split, split_of

Policy = Callable[[str], str]
"""Name of a linear layer -> its type."""

DESCRIPTIONS = {
    Tool.GOLDEN_STICK: "quantization_description.json",
    Tool.MODELSLIM: "quant_model_description.json",
}
FILES = {
    Tool.GOLDEN_STICK: "quant-model-00001-of-00001.safetensors",
    Tool.MODELSLIM: "quant_model_weights-00001-of-00001.safetensors",
}


def all_of(kind: str) -> Policy:
    """Every layer of that type but the head."""
    return lambda name: FLOAT if name == "lm_head" else kind


def mixed(name: str) -> str:
    """What the users' script for SmoothQuant makes: down projections per token; a float layer."""
    if name == "lm_head" or ".layers.1." in name:
        return FLOAT
    return DYNAMIC if name.endswith("down_proj") else STATIC


def mixed_weights(name: str) -> str:
    """Weights alone beside int8 activations, from layer to layer and within one; a float layer."""
    if name == "lm_head" or ".layers.1." in name:
        return FLOAT
    if ".layers.0." in name:
        return WEIGHT_INT4 if ".mlp." in name else STATIC
    return DYNAMIC if name.endswith("down_proj") else WEIGHT_INT8


class WeightOnlyLinear(torch.nn.Module):
    """A product with the float weight that codes stand for, in float32, rounded once."""

    def __init__(self, weight: weight_only.Floats, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = torch.from_numpy(weight), bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.float()
        return torch.nn.functional.linear(x.float(), self.weight, bias).to(x.dtype)


class QuantizedLinear(torch.nn.Module):
    """One layer computed from the tensors of its file."""

    def __init__(self, kind: str, tensors: Tensors, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.kind, self.tensors, self.bias = kind, tensors, bias
        self.flip: int | None = None  # of the codes of one call, the one that is off by one
        self.ranks = 1  # that divide its inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1]).float().numpy()
        tensors: Any = self.tensors
        weight_scale = tensors["weight_scale"].reshape(-1)
        if self.kind == DYNAMIC and self.ranks > 1:
            return self._of_ranks(x, rows)
        if self.kind == DYNAMIC:
            codes, scales = primitives.quantize_per_token(rows)
        else:
            codes = primitives.quantize(rows, tensors["input_scale"], tensors["input_offset"])
        if self.flip is not None:
            codes.flat[self.flip % codes.size] ^= 1
        sums = primitives.accumulate(codes, tensors["weight"])
        if self.kind == DYNAMIC:
            values = primitives.dequantize_per_token(sums, weight_scale, scales)
        else:
            values = primitives.dequantize(sums, tensors["deq_scale"], tensors["quant_bias"])
        y = torch.from_numpy(values).to(x.dtype).reshape(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias.to(x.dtype)

    def _of_ranks(self, x: torch.Tensor, rows: Any) -> torch.Tensor:
        """Per token, each rank finding the scales of its part of the rows."""
        tensors: Any = self.tensors
        total = 0.0
        parts = np.split(rows, self.ranks, 1), np.split(tensors["weight"], self.ranks, 1)
        for part, weight in zip(*parts, strict=True):
            codes, scales = primitives.quantize_per_token(part)
            sums = primitives.accumulate(codes, np.ascontiguousarray(weight))
            weight_scale = tensors["weight_scale"].reshape(-1)
            total = total + primitives.dequantize_per_token(sums, weight_scale, scales)
        y = torch.from_numpy(np.asarray(total)).to(x.dtype).reshape(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias.to(x.dtype)


class Quantized:
    """A float folder, quantized in memory; `write` makes the checkpoint."""

    def __init__(
        self,
        folder: Path,
        policy: Policy,
        tool: Tool,
        prompts: list[list[int]],
        group_size: int = 0,
    ) -> None:
        self.folder, self.tool = folder, tool
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        ranges = self._ranges(prompts)
        self.types: dict[str, str] = {}
        self.layers: dict[str, Tensors] = {}
        for name, layer in self._linears().items():
            kind = policy(name)
            if kind == FLOAT:
                continue
            bias = None if layer.bias is None else layer.bias.detach().numpy()
            linear = Linear(layer.weight.detach().numpy(), bias)
            self.types[name] = kind
            if kind == STATIC:
                scale = activation_scale(*ranges[name], with_zero=True)
                self.layers[name] = linears.static(linear, scale, tool)
            elif kind in HALF_ONLY:
                self.layers[name] = weight_only.store(linear, kind, tool, group_size)
            else:
                self.layers[name] = linears.dynamic(linear, tool)

    def _linears(self) -> dict[str, torch.nn.Linear]:
        modules = self._model.named_modules()
        return {name: m for name, m in modules if isinstance(m, torch.nn.Linear)}

    @torch.no_grad()
    def _ranges(self, prompts: list[list[int]]) -> dict[str, tuple[float, float]]:
        """Least and largest input of each layer, the same for projections of one input."""
        found: dict[str, tuple[float, float]] = {}

        def watch(name: str) -> Any:
            def note(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
                low, high = (float(v) for v in inputs[0].aminmax())
                before = found.get(name, (low, high))
                found[name] = min(low, before[0]), max(high, before[1])

            return note

        hooks = [m.register_forward_pre_hook(watch(n)) for n, m in self._linears().items()]
        for prompt in prompts:
            self._model(torch.tensor([prompt]))
        for hook in hooks:
            hook.remove()
        return found

    def cache_scales(self, prompts: list[list[int]]) -> dict[str, Tensors]:
        """Those of an int8 key/value cache, by the float model."""
        return int8_cache.calibrate(self._model, prompts)

    def write(self, folder: Path, dtype: torch.dtype, cache: Scales | None = None) -> Path:
        """The checkpoint, its floats in `dtype`, with the scales of an int8 cache if given."""
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
        stored, types = {}, {}
        for file in self.folder.glob("*.safetensors"):
            for name, tensor in load_file(file).items():
                if name.rpartition(".")[0] not in self.layers:
                    stored[name], types[name] = tensor.to(dtype), FLOAT
        for name, tensors in self.layers.items():
            for part, values in tensors.items():
                tensor = torch.from_numpy(np.ascontiguousarray(values))
                model_dtype = part in linears.MODEL_DTYPE[self.tool]
                stored[f"{name}.{part}"] = tensor.to(dtype) if model_dtype else tensor
                types[f"{name}.{part}"] = self.types[name]
        for name, tensors in (cache or {}).items():
            for part, values in tensors.items():
                stored[f"{name}.{part}"] = torch.from_numpy(values)  # type: ignore[arg-type]
                types[f"{name}.{part}"] = STATIC  # what ModelSlim writes, whatever the layer has
        if cache is not None:
            types["kv_cache_type"] = "C8"
        save_file(stored, folder / FILES[self.tool])
        (folder / DESCRIPTIONS[self.tool]).write_text(json.dumps(types))
        config = json.loads((folder / "config.json").read_text())
        config["dtype"] = str(dtype).removeprefix("torch.")
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def reference(
        self, dtype: torch.dtype, cache: Scales | None = None, ranks: int = 1
    ) -> QuantizedReference:
        """Transformers' model with these layers, and maybe an int8 cache, in `dtype`; of several
        ranks, its row-parallel layers are divided."""
        reference = QuantizedReference(self.folder, dtype, self.types, self.layers, self.tool)
        for name in self.layers:
            layer = reference.model.get_submodule(name)
            if split_of(name) is Split.ROW and isinstance(layer, QuantizedLinear):
                layer.ranks = ranks
        if cache is not None:
            int8_cache.install(reference.model, cache)
        return reference


class QuantizedReference:
    """Logits of the quantized model."""

    def __init__(
        self,
        folder: Path,
        dtype: torch.dtype,
        types: Mapping[str, str],
        layers: Mapping[str, Tensors],
        tool: Tool,
    ) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        self._layers = []
        for name, tensors in layers.items():
            linear = self.model.get_submodule(name)
            kind = types[name]
            folded = tool is Tool.MODELSLIM and kind == STATIC
            bias = None if folded or linear.bias is None else linear.bias.detach()
            if kind in HALF_ONLY:
                layer: Any = WeightOnlyLinear(weight_only.values(tensors, kind, tool), bias)
            else:
                layer = QuantizedLinear(kind, tensors, bias)
            parent, _, last = name.rpartition(".")
            setattr(self.model.get_submodule(parent), last, layer)
            self._layers.append(layer)

    @torch.no_grad()
    def logprobs(self, token_ids: list[int]) -> torch.Tensor:
        """fp32 [T, vocab] log probabilities of the next token."""
        logits = self.model(torch.tensor([token_ids])).logits[0].float()
        return logits.log_softmax(-1)

    def one_flip(self, token_ids: list[int], seed: int) -> torch.Tensor:
        """The same after one code of the first layer, chosen by `seed`, is off by one."""
        self._layers[0].flip = int(np.random.default_rng(seed).integers(1 << 40))
        try:
            return self.logprobs(token_ids)
        finally:
            self._layers[0].flip = None
