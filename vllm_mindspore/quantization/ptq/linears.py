# SPDX-License-Identifier: Apache-2.0
"""One quantized linear layer as either tool stores it: the tensors by their last names.

Those named in `MODEL_DTYPE` are stored in the dtype of the model's floats; what is computed with
them is computed from the values that are stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.description import WEIGHT_INT4, Tool
from vllm_mindspore.quantization.primitives import ActivationScale

Floats = npt.NDArray[np.float32]
Tensors = dict[str, npt.NDArray[np.generic]]

MODEL_DTYPE = {
    Tool.GOLDEN_STICK: frozenset({"input_scale", "weight_scale", "bias", "beta"}),
    Tool.MODELSLIM: frozenset({"bias", "beta"}),
}
"""Names of tensors that have the dtype of the model."""

# Golden Stick reaches the weight code -128, ModelSlim does not.
_WEIGHT_STEPS = {Tool.GOLDEN_STICK: 255, Tool.MODELSLIM: 254}
_INT4_STEPS = 15


@dataclass(frozen=True)
class Linear:
    """A float linear layer.

    Attributes:
        weight: [N, K].
        bias: [N] or None.
        dtype: the model's.
        dense: what `weight` was before some of it became zero, or None.
    """

    weight: Floats
    bias: Floats | None = None
    dtype: torch.dtype = torch.float32
    dense: Floats | None = None

    @property
    def exact(self) -> Floats:
        """The weight whose products quantization should come close to, [N, K]."""
        return self.weight if self.dense is None else self.dense


def rounded(values: npt.ArrayLike, dtype: torch.dtype) -> Floats:
    """The float32 values that `dtype` stores for these."""
    exact = torch.from_numpy(np.array(values, np.float32))
    stored: Floats = exact.to(dtype).float().numpy()
    return stored


def static(
    linear: Linear, activation: ActivationScale, tool: Tool, shift: Floats | None = None
) -> Tensors:
    """W8A8 with the input's one scale and zero point, after `shift` [K] is taken off the input.

    Raises ValueError for a zero point or a folded bias that its integer type does not hold.
    """
    offset = activation.offset
    golden_stick = tool is Tool.GOLDEN_STICK
    scale = rounded(activation.scale, linear.dtype if golden_stick else torch.float32)
    if not primitives.INT8_MIN <= offset <= primitives.INT8_MAX:
        raise ValueError(
            f"the zero point {offset} exceeds int8: the input has one sign; widen its range to "
            "hold zero"
        )
    codes, weight_scale = _weight(linear, tool)
    deq_scale = scale * weight_scale
    found: Tensors = {"weight": codes, "deq_scale": deq_scale}
    folded = np.zeros(len(codes), np.float32)
    if shift is not None:
        taken_off = rounded(shift, linear.dtype)
        found["beta"] = -taken_off
        folded = linear.exact @ taken_off
    if golden_stick:
        inner = codes.shape[1]
        found["quant_bias"] = primitives.folded_bias(codes, offset, folded, deq_scale)
        found["input_scale"] = np.full(inner, scale)
        found["input_offset"] = np.full(inner, offset, np.int8)
        found["weight_scale"] = weight_scale
        found["weight_offset"] = np.zeros(len(codes), np.int32)
    else:
        folded = folded if linear.bias is None else folded + linear.bias
        found["quant_bias"] = primitives.folded_bias(codes, offset, folded, deq_scale)
        found["input_scale"] = np.array([scale])
        found["input_offset"] = np.array([offset], np.float32)
        found["weight_scale"] = weight_scale[:, None]
        found["weight_offset"] = np.zeros((len(codes), 1), np.float32)
    return _with_bias(found, linear)


def dynamic(linear: Linear, tool: Tool) -> Tensors:
    """int8 weights with a scale per output channel and nothing about the input: W8A8_DYNAMIC, where
    each token's row finds its scale when it is computed, and W8A16."""
    codes, weight_scale = _weight(linear, tool)
    found: Tensors = {"weight": codes}
    if tool is Tool.GOLDEN_STICK:
        found["weight_scale"] = weight_scale
        found["weight_offset"] = np.zeros(len(codes), np.int32)
    else:
        found["weight_scale"] = weight_scale[:, None]
        found["weight_offset"] = np.zeros((len(codes), 1), np.float32)
    return _with_bias(found, linear)


def int4(linear: Linear, group_size: int = 0) -> Tensors:
    """W4A16 as Golden Stick packs it: scales [N], or [K / group_size, N] of groups along K.

    Raises ValueError for an odd N and for a K that the groups do not divide.
    """
    inner = linear.weight.shape[1]
    if group_size and inner % group_size:
        raise ValueError(f"{inner} input channels are no multiple of the group size {group_size}")
    parts = linear.weight.reshape(len(linear.weight), -1, group_size or inner)
    scale = rounded(primitives.weight_scale(parts, steps=_INT4_STEPS), linear.dtype)  # [N, groups]
    codes = _int4_codes(parts / scale[..., None]).reshape(linear.weight.shape)
    stored = np.ascontiguousarray(scale.T) if group_size else scale[:, 0]
    found: Tensors = {
        "weight": primitives.pack_int4(codes),
        "weight_scale": stored,
        "weight_offset": np.zeros(stored.shape, np.int32),
    }
    return _with_bias(found, linear)


def float_weight(tensors: Tensors, kind: str) -> Floats:
    """The weight [N, K] that the tensors of a quantized layer stand for."""
    codes: npt.NDArray[np.int8] = tensors["weight"].astype(np.int8, copy=False)
    scale: Floats = tensors["weight_scale"].astype(np.float32, copy=False)
    if kind == WEIGHT_INT4:
        return primitives.dequantize_weight(primitives.unpack_int4(codes), scale.T)
    return primitives.dequantize_weight(codes, scale.reshape(-1))


def _weight(linear: Linear, tool: Tool) -> tuple[npt.NDArray[np.int8], Floats]:
    """Codes and scales [N]. In float32: the largest weight of a channel is 127.5 of Golden Stick's
    steps, and a last bit decides which code it gets."""
    dtype = linear.dtype if tool is Tool.GOLDEN_STICK else torch.float32
    steps = primitives.weight_scale(linear.weight, steps=_WEIGHT_STEPS[tool])
    scale = rounded(steps, dtype)
    return primitives.quantize(linear.weight, scale[:, None]), scale


def _int4_codes(steps: Floats) -> npt.NDArray[np.int8]:
    return np.clip(np.rint(steps), primitives.INT4_MIN, primitives.INT4_MAX).astype(np.int8)


def _with_bias(found: Tensors, linear: Linear) -> Tensors:
    if linear.bias is not None:
        found["bias"] = linear.bias
    return found
