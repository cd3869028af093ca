# SPDX-License-Identifier: Apache-2.0
"""One quantized linear layer as either tool stores it: the tensors by their last names.

Arrays are exact; those named in `MODEL_DTYPE` are stored in the dtype of the model's floats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.description import Tool
from vllm_mindspore.quantization.primitives import ActivationScale

Floats = npt.NDArray[np.float32]
Tensors = dict[str, npt.NDArray[np.generic]]

MODEL_DTYPE = {
    Tool.GOLDEN_STICK: frozenset({"input_scale", "weight_scale", "bias"}),
    Tool.MODELSLIM: frozenset({"bias"}),
}
"""Names of tensors that have the dtype of the model."""

# Golden Stick reaches the weight code -128, ModelSlim does not.
_WEIGHT_STEPS = {Tool.GOLDEN_STICK: 255, Tool.MODELSLIM: 254}


@dataclass(frozen=True)
class Linear:
    """A float linear layer: weight [N, K] and bias [N] or None."""

    weight: Floats
    bias: Floats | None = None


def static(linear: Linear, activation: ActivationScale, tool: Tool) -> Tensors:
    """W8A8 with the input's one scale and zero point.

    Raises ValueError for a zero point or a folded bias that its integer type does not hold.
    """
    scale, offset = np.float32(activation.scale), activation.offset
    if not primitives.INT8_MIN <= offset <= primitives.INT8_MAX:
        raise ValueError(
            f"the zero point {offset} exceeds int8: the input has one sign; widen its range to "
            "hold zero"
        )
    codes, weight_scale = _weight(linear, tool)
    deq_scale = scale * weight_scale
    found: Tensors = {"weight": codes, "deq_scale": deq_scale}
    if tool is Tool.GOLDEN_STICK:
        inner = codes.shape[1]
        found["quant_bias"] = primitives.folded_offset(codes, offset)
        found["input_scale"] = np.full(inner, scale)
        found["input_offset"] = np.full(inner, offset, np.int8)
        found["weight_scale"] = weight_scale
        found["weight_offset"] = np.zeros(len(codes), np.int32)
    else:
        bias = np.zeros(len(codes), np.float32) if linear.bias is None else linear.bias
        found["quant_bias"] = primitives.folded_bias(codes, offset, bias, deq_scale)
        found["input_scale"] = np.array([scale])
        found["input_offset"] = np.array([offset], np.float32)
        found["weight_scale"] = weight_scale[:, None]
        found["weight_offset"] = np.zeros((len(codes), 1), np.float32)
    return _with_bias(found, linear)


def dynamic(linear: Linear, tool: Tool) -> Tensors:
    """W8A8_DYNAMIC: each token's row finds its scale when it is computed."""
    codes, weight_scale = _weight(linear, tool)
    found: Tensors = {"weight": codes}
    if tool is Tool.GOLDEN_STICK:
        found["weight_scale"] = weight_scale
        found["weight_offset"] = np.zeros(len(codes), np.int32)
    else:
        found["weight_scale"] = weight_scale[:, None]
        found["weight_offset"] = np.zeros((len(codes), 1), np.float32)
    return _with_bias(found, linear)


def _weight(linear: Linear, tool: Tool) -> tuple[npt.NDArray[np.int8], Floats]:
    scale = primitives.weight_scale(linear.weight, steps=_WEIGHT_STEPS[tool])
    return primitives.quantize_weight(linear.weight, scale), scale.astype(np.float32)


def _with_bias(found: Tensors, linear: Linear) -> Tensors:
    if linear.bias is not None:
        found["bias"] = linear.bias
    return found
