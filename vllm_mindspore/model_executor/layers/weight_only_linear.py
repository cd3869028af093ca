# SPDX-License-Identifier: Apache-2.0
"""Projections whose weights alone are quantized, as a builtin primitive: what an NPU runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.ops.auto_generate import gen_ops_prim

from vllm_mindspore import bridge
from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.schemes.base import Kind, LinearParameters

if TYPE_CHECKING:
    import torch


class WeightOnlyLinear(nn.Cell):
    """One to three projections of the same input, their weights copied together; outputs
    concatenated. Scales and offsets have the model's dtype, as the primitive wants them."""

    def __init__(self, found: LinearParameters, dtype: torch.dtype) -> None:
        super().__init__()
        int4 = found.kind is Kind.WEIGHT_INT4
        self.weight = _int4_weight(found) if int4 else _int8_weight(found)
        self.scale = _joined(found.scales, dtype, turned=int4)
        self.offset = _joined(found.offsets, dtype, turned=int4) if found.offsets else None
        self.bias: Parameter | None = None
        if found.biases:
            values = np.concatenate([bias.asnumpy() for bias in found.biases])
            joined = bridge.constant(f"{found.biases[0].name}.joined", values)
            self.bias = bridge.typed(joined, dtype)
        self.matmul = gen_ops_prim.WeightQuantBatchMatmul(False, not int4, found.group_size)

    def construct(self, x: Tensor, slots: None = None) -> Tensor:
        """x [T, in_features] -> [T, sum(out_features)]; not for models with adapters."""
        return self.matmul(x, self.weight, self.scale, self.offset, None, None, self.bias)


def _int8_weight(found: LinearParameters) -> Parameter:
    """int8 [N, K]; the only one is not copied."""
    first, *others = found.weights
    if not others:
        return first
    values = np.concatenate([weight.asnumpy() for weight in found.weights])
    return bridge.constant(f"{first.name}.joined", values)


def _int4_weight(found: LinearParameters) -> Parameter:
    """int4 [K, N] in pairs along N, as files have it."""
    inner = found.in_features
    codes = [primitives.int4_codes(weight.asnumpy(), inner) for weight in found.weights]
    packed = primitives.pack_int4(np.concatenate(codes))
    return bridge.int4_constant(f"{found.weights[0].name}.packed", packed)


def _joined(parts: tuple[Parameter, ...], dtype: torch.dtype, *, turned: bool) -> Parameter:
    """[N], or of groups [N, groups], `turned` [groups, N]."""
    values = np.concatenate([part.asnumpy() for part in parts])
    stored = np.ascontiguousarray(values.T) if turned else values
    return bridge.constant(f"{parts[0].name}.joined", stored, dtype)
