# SPDX-License-Identifier: Apache-2.0
"""Projections with compressed int8 weights in builtin primitives: what Atlas 300I Duo runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mindspore
from mindspore import Parameter, Tensor, mint, nn
from mindspore.ops.auto_generate import gen_ops_prim

from vllm_mindspore import bridge
from vllm_mindspore.model_executor.layers.quantized_linear import StaticCodes, joined
from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.schemes.base import Kind, LinearParameters

if TYPE_CHECKING:
    import torch


class SparseLinear(nn.Cell):
    """QuantV2, then QuantLinearSparse for each stream, which may hold several projections of the
    input; outputs concatenated. That primitive gives float16 and nothing else."""

    def __init__(self, found: LinearParameters, dtype: torch.dtype) -> None:
        super().__init__()
        name = found.weights[0].name
        if str(dtype) != "torch.float16":
            raise ValueError(
                f"{name}: the primitive chain of compressed weights computes in float16 only, the "
                f"model's dtype is {str(dtype).removeprefix('torch.')}; use --dtype float16 or "
                "unset VLLM_MS_FUSED_KERNELS"
            )
        if found.kind is not Kind.DIVIDE:
            raise ValueError(f"{name}: compressed weights need static scales that inputs are over")
        self.quantize = StaticCodes(found, dtype)
        streams = zip(found.weights, found.indexes, found.scales, found.quant_biases, strict=True)
        self.streams = nn.CellList([_Stream(*parts) for parts in streams])
        self.bias: Parameter | None = None
        if found.biases:
            self.bias = joined(found.biases)

    def construct(self, x: Tensor, slots: None = None) -> Tensor:
        """x [T, in_features] -> [T, sum(out_features)]; not for models with adapters."""
        codes, _ = self.quantize(x)
        parts: tuple[Tensor, ...] = ()
        for stream in self.streams:
            parts += (stream(codes),)
        y = parts[0] if len(parts) == 1 else mint.cat(parts, -1)
        return y if self.bias is None else y + self.bias


class _Stream(nn.Cell):
    """One compressed weight."""

    def __init__(
        self, stream: Parameter, index: Parameter, scale: Parameter, quant_bias: Parameter
    ) -> None:
        super().__init__()
        self.stream, self.index, self.quant_bias = stream, index, quant_bias
        self.scale = scale
        if scale.dtype != mindspore.int64:
            encoded = primitives.encode_deq_scale(scale.asnumpy())
            self.scale = bridge.constant(f"{scale.name}.encoded", encoded)
        self.matmul = gen_ops_prim.QuantLinearSparse()

    def construct(self, codes: Tensor) -> Tensor:
        """codes int8 [T, K] -> float16 [T, N]."""
        y: Tensor = self.matmul(codes, self.stream, self.scale, self.index, self.quant_bias)
        return y
