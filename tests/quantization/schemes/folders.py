# SPDX-License-Identifier: Apache-2.0
"""Real files of one quantized projection, and what a scheme makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mindspore import Parameter
from safetensors.torch import save_file

from vllm_mindspore.bridge import to_torch
from vllm_mindspore.model_executor.model_loader.safetensors import SafetensorsSource
from vllm_mindspore.quantization.description import Tool
from vllm_mindspore.quantization.ptq.linears import MODEL_DTYPE, Tensors
from vllm_mindspore.quantization.schemes.base import LinearParameters, Projections, Scheme

Stored = dict[str, torch.Tensor]


def stored(tensors: Tensors, tool: Tool, dtype: torch.dtype = torch.float32) -> Stored:
    """The tensors as they are stored for a model of `dtype`."""
    found = {}
    for name, values in tensors.items():
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        found[name] = tensor.to(dtype) if name in MODEL_DTYPE[tool] else tensor
    return found


def source(
    folder: Path, layers: dict[str, Stored], dtype: torch.dtype = torch.float32
) -> SafetensorsSource:
    """Over a file with these layers."""
    flat = {f"{layer}.{name}": t for layer, parts in layers.items() for name, t in parts.items()}
    save_file(flat, folder / "model.safetensors")
    return SafetensorsSource(folder, dtype)


def load(
    folder: Path,
    scheme: Scheme,
    layers: dict[str, Stored],
    *,
    bias: bool = False,
    dtype: torch.dtype = torch.float32,
    int4: bool = False,
) -> LinearParameters:
    """What the scheme finds, of weights [N, K] or int4 [K, N / 2]; raises what `finish` raises."""
    shapes = [tuple(parts["weight"].shape) for parts in layers.values()]
    if int4:
        shapes = [(2 * pairs, inner) for inner, pairs in shapes]
    inner, sizes = shapes[0][1], tuple(size for size, _ in shapes)
    opened = source(folder, layers, dtype)
    asked = Projections(tuple(layers), inner, sizes, bias)
    found = scheme.parameters(opened, asked)
    opened.finish()
    return found


def values(parameters: Parameter | Sequence[Parameter] | None) -> torch.Tensor:
    """Those of a parameter, or of the only one."""
    assert parameters is not None
    if isinstance(parameters, Parameter):
        return to_torch(parameters)
    (parameter,) = parameters
    return to_torch(parameter)


def have(parameters: Sequence[Parameter], expected: Sequence[torch.Tensor]) -> bool:
    """Whether the parameters have these values."""
    found = [to_torch(parameter) for parameter in parameters]
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
