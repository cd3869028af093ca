# SPDX-License-Identifier: Apache-2.0
"""The gated feed-forward block: down(silu(gate(x)) * up(x)) (https://arxiv.org/abs/2002.05202)."""

from __future__ import annotations

from mindspore import Tensor, nn
from mindspore.ops.auto_generate import gen_ops_prim

from vllm_mindspore.device.custom_ops import custom_op
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.layers.linear import build_linear, build_merged
from vllm_mindspore.model_executor.layers.reduction import over_ranks


class FusedSwiglu(nn.Cell):
    """silu(x . Wg^T) * (x . Wu^T) in one node."""

    def __init__(self, builder: LayerBuilder, name: str, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate = builder.source.take_bits(f"{name}.gate_proj.weight", (inner, hidden))
        self.up = builder.source.take_bits(f"{name}.up_proj.weight", (inner, hidden))
        self.kernel = custom_op("vmo_gate_up_swiglu", 3)

    def construct(self, x: Tensor, slots: None = None) -> Tensor:
        """x [T, hidden] -> [T, inner]; not for models with adapters."""
        return self.kernel(x, self.gate, self.up)


class ChainSwiglu(nn.Cell):
    """The same as a projection to gate and up side by side and the Swiglu primitive."""

    def __init__(
        self, builder: LayerBuilder, name: str, hidden: int, inner: int, *, bias: bool = False
    ) -> None:
        super().__init__()
        names = [f"{name}.gate_proj", f"{name}.up_proj"]
        self.gate_up = build_merged(builder, names, hidden, [inner, inner], bias=bias)
        self.swiglu = gen_ops_prim.Swiglu()

    def construct(self, x: Tensor, slots: Tensor | None = None) -> Tensor:
        """x [T, hidden], adapter slots i32 [T] -> [T, inner]."""
        return self.swiglu(self.gate_up(x, slots), -1)


class OneTensorSwiglu(nn.Cell):
    """The same for checkpoints whose `gate_up_proj` holds gate above up.

    With either kind of kernels: FusedSwiglu wants two parameters, and this file has one.
    """

    def __init__(self, builder: LayerBuilder, name: str, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_up = build_linear(builder, f"{name}.gate_up_proj", hidden, 2 * inner)
        self.swiglu = gen_ops_prim.Swiglu()

    def construct(self, x: Tensor, slots: Tensor | None = None) -> Tensor:
        """x [T, hidden], adapter slots i32 [T] -> [T, inner]."""
        return self.swiglu(self.gate_up(x, slots), -1)


def _has_fused_swiglu(builder: LayerBuilder, bias: bool) -> bool:
    plain = builder.adapters is None and not builder.quantization.quantized
    return builder.fused and plain and not bias and not builder.apart


class GatedMLP(nn.Cell):
    """The feed-forward block of Llama-like models.

    `bias`: whether its three projections have biases. `one_tensor`: whether the checkpoint holds
    the gate and up projections (then without biases) as one tensor.
    """

    def __init__(
        self,
        builder: LayerBuilder,
        name: str,
        hidden: int,
        inner: int,
        *,
        bias: bool = False,
        one_tensor: bool = False,
    ) -> None:
        super().__init__()
        if one_tensor:
            self.activation = OneTensorSwiglu(builder, name, hidden, inner)
        elif _has_fused_swiglu(builder, bias):
            self.activation = FusedSwiglu(builder, name, hidden, inner)
        else:
            self.activation = ChainSwiglu(builder, name, hidden, inner, bias=bias)
        down = build_linear(builder, f"{name}.down_proj", inner, hidden, bias=bias)
        self.down = over_ranks(builder, down)

    def construct(self, x: Tensor, slots: Tensor | None = None) -> Tensor:
        """x [T, hidden], adapter slots i32 [T] -> [T, hidden]."""
        return self.down(self.activation(x, slots), slots)
