# SPDX-License-Identifier: Apache-2.0
"""The gated feed-forward block: down(silu(gate(x)) * up(x)) (https://arxiv.org/abs/2002.05202)."""

from __future__ import annotations

from mindspore import Tensor, nn, ops
from mindspore.ops.auto_generate import gen_ops_prim

from vllm_mindspore.device.custom_ops import custom_op
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.layers.linear import Linear


class FusedSwiglu(nn.Cell):
    """silu(x . Wg^T) * (x . Wu^T) in one node."""

    def __init__(self, builder: LayerBuilder, name: str, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate = builder.source.take(f"{name}.gate_proj.weight", (inner, hidden))
        self.up = builder.source.take(f"{name}.up_proj.weight", (inner, hidden))
        self.kernel = custom_op("vmo_gate_up_swiglu", 3)

    def construct(self, x: Tensor) -> Tensor:
        """x [T, hidden] -> [T, inner]."""
        return self.kernel(x, self.gate, self.up)


class ChainSwiglu(nn.Cell):
    """The same as MatMul and Swiglu primitives."""

    def __init__(self, builder: LayerBuilder, name: str, hidden: int, inner: int) -> None:
        super().__init__()
        names = [f"{name}.gate_proj.weight", f"{name}.up_proj.weight"]
        self.weight = builder.source.take_merged(names, [(inner, hidden)] * 2)
        self.matmul = ops.MatMul(transpose_b=True)
        self.swiglu = gen_ops_prim.Swiglu()

    def construct(self, x: Tensor) -> Tensor:
        """x [T, hidden] -> [T, inner]."""
        return self.swiglu(self.matmul(x, self.weight), -1)


class GatedMLP(nn.Cell):
    """The feed-forward block of Llama-like models."""

    def __init__(self, builder: LayerBuilder, name: str, hidden: int, inner: int) -> None:
        super().__init__()
        activation = FusedSwiglu if builder.fused else ChainSwiglu
        self.activation = activation(builder, name, hidden, inner)
        self.down = Linear(builder, f"{name}.down_proj", inner, hidden)

    def construct(self, x: Tensor) -> Tensor:
        """x [T, hidden] -> [T, hidden]."""
        return self.down(self.activation(x))
