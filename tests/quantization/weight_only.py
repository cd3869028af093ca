# SPDX-License-Identifier: Apache-2.0
"""Layers whose weights alone are quantized, as the tools store them, and the float weights they
stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.description import WEIGHT_INT4, Tool
from vllm_mindspore.quantization.ptq.linears import Linear, Tensors

Floats = npt.NDArray[np.float32]


def store(linear: Linear, kind: str, tool: Tool, group_size: int = 0) -> Tensors:
    """The tensors of a layer of type W8A16 or W4A16. Scales are numbers of bfloat16 and float16, so
    that files of either dtype hold them exactly."""
    bits = 4 if kind == WEIGHT_INT4 else 8
    groups = linear.weight.reshape(len(linear.weight), -1, group_size or linear.weight.shape[1])
    exact = primitives.weight_scale(groups, steps=2 ** (bits - 1) * 2 - 1)
    scale = torch.from_numpy(exact).bfloat16().float().numpy()
    codes = primitives.quantize_weight(linear.weight, scale, bits=bits)
    if tool is Tool.MODELSLIM:
        found: Tensors = {"weight_scale": scale, "weight_offset": np.zeros_like(scale)}
    else:
        turned = np.ascontiguousarray(scale.T) if group_size else scale[:, 0]
        found = {"weight_scale": turned, "weight_offset": np.zeros(turned.shape, np.int32)}
    found["weight"] = pack(codes, tool, grouped=scale.shape[1] > 1) if bits == 4 else codes
    if linear.bias is not None:
        found["bias"] = linear.bias
    return found


def pack(codes: npt.NDArray[np.int8], tool: Tool, *, grouped: bool) -> npt.NDArray[np.int8]:
    """int4 codes [N, K] as the tool stores them: ModelSlim pairs neighbours along K where each
    output has one scale."""
    if tool is Tool.MODELSLIM and not grouped:
        return primitives.pack_int4(codes.T)
    packed = primitives.pack_int4(codes)
    return packed.T if tool is Tool.MODELSLIM else packed


def unpack(stored: npt.NDArray[np.int8], tool: Tool, *, grouped: bool) -> npt.NDArray[np.int8]:
    """The codes [N, K] of that."""
    if tool is Tool.MODELSLIM and not grouped:
        return primitives.unpack_int4(stored).T
    return primitives.unpack_int4(stored.T if tool is Tool.MODELSLIM else stored)


def values(tensors: Tensors, kind: str, tool: Tool) -> Floats:
    """The weight [N, K] of stored tensors."""
    stored: Any = tensors
    codes = stored["weight"]
    if kind == WEIGHT_INT4:
        scales = stored["weight_scale"]
        codes = unpack(codes, tool, grouped=scales.ndim > 1 and scales.shape[1] > 1)
    scale, offset = (
        part.astype(np.float32) if part.ndim == 1 or tool is Tool.MODELSLIM else part.T
        for part in (stored["weight_scale"], stored["weight_offset"])
    )
    added = -offset if tool is Tool.MODELSLIM else offset
    return primitives.dequantize_weight(codes, scale, added)
