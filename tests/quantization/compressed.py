# SPDX-License-Identifier: Apache-2.0
"""Folders as llm-compressor writes them, by the compressed-tensors library that it uses itself,
and what transformers computes with their tensors.

Scales are largest / 127.5 (half the 255 steps), computed in the dtype of the model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
    QuantizationStatus,
)
from compressed_tensors.quantization.lifecycle.apply import apply_quantization_config
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.quantization.checkpoints import QuantizedReference
from vllm_mindspore.quantization import primitives

WEIGHTS = QuantizationArgs(num_bits=8, strategy="channel")
STATIC = QuantizationArgs(num_bits=8, strategy="tensor")
ZERO_POINT = QuantizationArgs(num_bits=8, strategy="tensor", symmetric=False)
DYNAMIC = QuantizationArgs(num_bits=8, strategy="token", dynamic=True)
Layer = dict[str, torch.Tensor]


def config(
    groups: Sequence[tuple[list[str], QuantizationArgs]], ignore: Sequence[str] = ("lm_head",)
) -> QuantizationConfig:
    """int8 weights; each group has targets and how inputs are quantized."""
    schemes = {
        f"group_{i}": QuantizationScheme(targets=targets, weights=WEIGHTS, input_activations=inputs)
        for i, (targets, inputs) in enumerate(groups)
    }
    return QuantizationConfig(
        config_groups=schemes,
        format="int-quantized",
        quantization_status=QuantizationStatus.COMPRESSED,
        ignore=list(ignore),
    )


def quantization_config(quantization: QuantizationConfig) -> dict[str, Any]:
    """As it is stored in config.json."""
    return json.loads(json.dumps(quantization.to_dict(), default=str))


class Compressed:
    """A float folder, quantized in memory; `write` makes the checkpoint."""

    def __init__(
        self,
        folder: Path,
        quantization: QuantizationConfig,
        prompts: list[list[int]],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.folder, self.quantization, self.dtype = folder, quantization, dtype
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        apply_quantization_config(model, quantization)  # which layer is in which group
        schemes = {
            name: module.quantization_scheme
            for name, module in model.named_modules()
            if hasattr(module, "quantization_scheme")
        }
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        ranges = _ranges(plain, list(schemes), prompts)
        self.layers = {
            name: _tensors(plain.get_submodule(name).weight, scheme, ranges[name])
            for name, scheme in schemes.items()
        }

    def write(self, folder: Path) -> Path:
        """The checkpoint."""
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
        stored = {}
        for file in self.folder.glob("*.safetensors"):
            stored |= {name: tensor.to(self.dtype) for name, tensor in load_file(file).items()}
        for name, layer in self.layers.items():
            stored |= {f"{name}.{part}": tensor.contiguous() for part, tensor in layer.items()}
        save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
        described = json.loads((folder / "config.json").read_text())
        described["dtype"] = str(self.dtype).removeprefix("torch.")
        described["quantization_config"] = quantization_config(self.quantization)
        (folder / "config.json").write_text(json.dumps(described))
        return folder

    def reference(self, dtype: torch.dtype) -> CompressedReference:
        """Transformers' model with these layers, in `dtype`."""
        return CompressedReference(self.folder, dtype, self.layers)


class CompressedLinear(torch.nn.Module):
    """One layer computed from the tensors of its file, offsets taken from the codes."""

    def __init__(self, layer: Layer, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.layer, self.bias = layer, bias
        self.flip: int | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1]).float().numpy()
        weight = self.layer["weight"].numpy()
        scale = self.layer["weight_scale"].float().numpy()[:, 0]
        if "input_scale" not in self.layer:
            codes, scales = primitives.quantize_per_token(rows)
            offset, factors = 0, scale[None] * scales[:, None]
        else:
            input_scale = self.layer["input_scale"].float().numpy()
            offset = int(self.layer.get("input_zero_point", torch.zeros(1)))
            codes = primitives.quantize(rows, input_scale, offset)
            factors = (input_scale * scale)[None]
        if self.flip is not None:
            codes.flat[self.flip % codes.size] ^= 1
        sums = (codes.astype(np.int64) - offset) @ weight.T.astype(np.int64)
        values = sums.astype(np.float32) * factors
        y = torch.from_numpy(values).to(x.dtype).reshape(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias.to(x.dtype)


class CompressedReference(QuantizedReference):
    """Logits of the quantized model."""

    def __init__(self, folder: Path, dtype: torch.dtype, layers: dict[str, Layer]) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        self._layers: list[Any] = []
        for name, layer in layers.items():
            parent, _, last = name.rpartition(".")
            linear = self.model.get_submodule(name)
            replaced = CompressedLinear(layer, linear.bias)
            setattr(self.model.get_submodule(parent), last, replaced)
            self._layers.append(replaced)


@torch.no_grad()
def _ranges(
    model: Any, names: list[str], prompts: list[list[int]]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def watch(name: str) -> Any:
        def note(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            low, high = inputs[0].aminmax()
            before = found.get(name, (low, high))
            found[name] = torch.minimum(low, before[0]), torch.maximum(high, before[1])

        return note

    for name in names:
        model.get_submodule(name).register_forward_pre_hook(watch(name))
    for prompt in prompts:
        model(torch.tensor([prompt]))
    return found


@torch.no_grad()
def _tensors(
    weight: torch.Tensor, scheme: QuantizationScheme, limits: tuple[torch.Tensor, torch.Tensor]
) -> Layer:
    scale, zero = calculate_qparams(
        weight.amin(-1, keepdim=True), weight.amax(-1, keepdim=True), scheme.weights
    )
    codes = quantize(weight, scale, zero, scheme.weights, dtype=torch.int8)
    found = {"weight": codes, "weight_scale": scale}
    inputs = scheme.input_activations
    if not inputs.dynamic:
        found["input_scale"], zero_point = calculate_qparams(*limits, inputs)
        if not inputs.symmetric:
            found["input_zero_point"] = zero_point
    return found
