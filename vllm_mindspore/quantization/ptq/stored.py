# SPDX-License-Identifier: Apache-2.0
"""A finished part of a model as the tensors of a checkpoint: full names, dtypes, types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.description import C8, FLOAT, Tool
from vllm_mindspore.quantization.ptq import linears
from vllm_mindspore.quantization.ptq.layer_quantizer import Quantized
from vllm_mindspore.quantization.ptq.linears import Tensors

StoredDtype = Callable[[str], torch.dtype]
"""Name of a float tensor -> its dtype in the checkpoint."""


def tensors(
    part: Quantized, tool: Tool, dtype: torch.dtype, stored: StoredDtype
) -> dict[str, torch.Tensor]:
    """Tensor name -> values. `dtype` is the model's."""
    found = {
        name: torch.from_numpy(values).to(stored(name)) for name, values in part.floats.items()
    }
    for module, parts in part.linears.items():
        found |= _linear(module, parts, tool, dtype)
    for module, parts in part.cache.items():
        found |= {f"{module}.{last}": torch.from_numpy(values) for last, values in parts.items()}
    return found


def types(part: Quantized, tool: Tool) -> dict[str, str]:
    """Tensor name -> type, as descriptions have it."""
    found = dict.fromkeys(part.floats, FLOAT)
    for module, parts in part.linears.items():
        found |= {f"{module}.{last}": part.kinds[module] for last in parts}
    for module, parts in part.cache.items():
        found |= {f"{module}.{last}": C8 for last in parts}
    return found


def _linear(module: str, parts: Tensors, tool: Tool, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    found = {}
    for last, values in parts.items():
        if last == "deq_scale" and dtype == torch.float16:
            # The form of Ascend's float16 kernels.
            encoded: npt.NDArray[Any] = primitives.encode_deq_scale(values.astype(np.float32))
            found[f"{module}.{last}"] = torch.from_numpy(encoded)
            continue
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        kept = last not in linears.MODEL_DTYPE[tool]
        found[f"{module}.{last}"] = tensor if kept else tensor.to(dtype)
    return found
