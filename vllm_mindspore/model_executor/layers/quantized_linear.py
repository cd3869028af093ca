# SPDX-License-Identifier: Apache-2.0
"""int8 projections in builtin primitives: what an NPU runs, and the reference of the fused ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import mindspore
import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.ops.auto_generate import gen_ops_prim

from vllm_mindspore import bridge
from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.schemes.base import Kind, LinearParameters

if TYPE_CHECKING:
    import torch


class QuantizedLinear(nn.Cell):
    """One to three projections of the same input, their weights copied together; outputs
    concatenated. Input scales and offsets have the model's dtype, as QuantV2 wants them."""

    def __init__(self, found: LinearParameters, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = joined(found.weights)
        self.scale = _output_scale(joined(found.scales), dtype)
        self.quantize = _codes(found, dtype)
        self.bias: Parameter | None = None
        if found.biases:
            self.bias = bridge.typed(joined(found.biases), dtype)
        self.quant_bias = joined(found.quant_biases) if found.quant_biases else None
        self.matmul = gen_ops_prim.QuantBatchMatmul(False, True, bridge.to_mindspore_dtype(dtype))

    def construct(self, x: Tensor, slots: None = None) -> Tensor:
        """x [T, in_features] -> [T, sum(out_features)]; not for models with adapters."""
        codes, token_scale = self.quantize(x)
        y = self.matmul(codes, self.weight, self.scale, None, self.quant_bias, token_scale)
        return y if self.bias is None else y + self.bias


class StaticCodes(nn.Cell):
    """QuantV2: with an int8 offset it divides by the scale, with a float one it multiplies. beta is
    added to the input before, in the model's dtype."""

    def __init__(self, found: LinearParameters, dtype: torch.dtype) -> None:
        super().__init__()
        assert found.input_scale is not None
        assert found.input_offset is not None
        scale, offset = _values(found.input_scale), _values(found.input_offset)
        name, divides = found.input_offset.name, found.kind is Kind.DIVIDE
        self.beta: Parameter | None = None
        if found.beta is not None:
            beta = _values(found.beta)
            offset = np.rint(offset - (beta / scale if divides else beta * scale))
            self.beta = bridge.constant(f"{name}.beta", beta, dtype)
        self.scale = bridge.constant(f"{name}.scale", scale, dtype)
        if divides:
            self.offset = bridge.constant(f"{name}.offset", offset.astype(np.int8))
        else:
            self.offset = bridge.constant(f"{name}.offset", offset, dtype)
        self.quant = gen_ops_prim.QuantV2()

    def construct(self, x: Tensor) -> tuple[Tensor, None]:
        """x [T, K] -> int8 codes [T, K]."""
        if self.beta is not None:
            x = x + self.beta
        return self.quant(x, self.scale, self.offset, False, "ROUND", mindspore.int8), None


class TokenCodes(nn.Cell):
    """DynamicQuantExt: each row finds its scale."""

    def __init__(self, found: LinearParameters, dtype: torch.dtype) -> None:
        super().__init__()
        assert found.input_scale is not None
        name = found.input_scale.name
        self.factors = bridge.constant(f"{name}.factors", _values(found.input_scale), dtype)
        self.quant = gen_ops_prim.DynamicQuantExt()

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [T, K] -> int8 codes [T, K] and float32 scales [T]."""
        codes, scales = self.quant(x, self.factors)
        return codes, scales


def _codes(found: LinearParameters, dtype: torch.dtype) -> nn.Cell:
    return (TokenCodes if found.kind is Kind.PER_TOKEN else StaticCodes)(found, dtype)


def _output_scale(scale: Parameter, dtype: torch.dtype) -> Parameter:
    """float32, or for float16 outputs the int64 that Ascend's kernels take."""
    if bridge.to_mindspore_dtype(dtype) != mindspore.float16:
        return scale
    encoded = primitives.encode_deq_scale(_values(scale))
    return bridge.constant(f"{scale.name}.encoded", encoded)


def joined(parameters: Sequence[Parameter]) -> Parameter:
    """Those of all projections, along N; the only one is not copied."""
    if len(parameters) == 1:
        return parameters[0]
    values = np.concatenate([_values(parameter) for parameter in parameters])
    return bridge.constant("+".join(parameter.name for parameter in parameters), values)


def _values(parameter: Parameter) -> np.ndarray:
    values: np.ndarray = parameter.asnumpy()
    return values
