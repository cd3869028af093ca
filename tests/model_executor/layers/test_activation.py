# SPDX-License-Identifier: Apache-2.0
"""The gated feed-forward block against its formula in fp64, fused and as a chain."""

from __future__ import annotations

import pytest
import torch

from tests.model_executor.layers.weights import KERNELS, RandomSource, check, tensor, varying
from vllm_mindspore.model_executor.layers.activation import ChainSwiglu, FusedSwiglu, GatedMLP
from vllm_mindspore.model_executor.layers.build import LayerBuilder

HIDDEN, INNER = 24, 56
each_kernel = pytest.mark.parametrize(
    ("dtype", "fused"), [kernel[1:] for kernel in KERNELS], ids=[kernel[0] for kernel in KERNELS]
)


def feed_forward(source: RandomSource, x: torch.Tensor) -> torch.Tensor:
    gate = x.double() @ source.wide("mlp.gate_proj.weight").T
    up = x.double() @ source.wide("mlp.up_proj.weight").T
    return (gate / (1 + (-gate).exp()) * up) @ source.wide("mlp.down_proj.weight").T


@each_kernel
def test_gated_mlp(dtype: torch.dtype, fused: bool) -> None:
    source = RandomSource(dtype)
    layer = GatedMLP(LayerBuilder(source=source, fused=fused), "mlp", HIDDEN, INNER)
    layer.set_inputs(varying(torch.empty(1, HIDDEN, dtype=dtype)))
    for rows in (3, 1, 6):
        x = (2 * torch.randn(rows, HIDDEN)).to(dtype)
        check(layer(tensor(x)), feed_forward(source, x), dtype, 3)


@pytest.mark.parametrize(("fused", "kind"), [(True, FusedSwiglu), (False, ChainSwiglu)])
def test_the_builder_chooses_the_kernels(fused: bool, kind: type) -> None:
    builder = LayerBuilder(source=RandomSource(torch.bfloat16), fused=fused)
    assert type(GatedMLP(builder, "mlp", HIDDEN, INNER).activation) is kind
