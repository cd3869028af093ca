# SPDX-License-Identifier: Apache-2.0
"""RMS normalisation against its formula in fp64."""

from __future__ import annotations

import pytest
import torch

from tests.model_executor.layers.weights import RandomSource, check, tensor, varying
from vllm_mindspore.bridge import to_torch
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.layers.layernorm import RmsNorm

SIZE = 40
# Large beside the mean square of half the rows below, so that it cannot be left out.
EPSILON = 1e-2
each_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str
)


def rows(count: int, dtype: torch.dtype) -> torch.Tensor:
    """Rows of rising size."""
    return (torch.randn(count, SIZE) * torch.logspace(-1.5, 1, count)[:, None]).to(dtype)


def normalise(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    wide = x.double()
    return wide / (wide.square().mean(-1, keepdim=True) + EPSILON).sqrt() * weight


def build(dtype: torch.dtype) -> tuple[RmsNorm, torch.Tensor]:
    source = RandomSource(dtype)
    norm = RmsNorm(LayerBuilder(source=source, fused=True), "norm", SIZE, EPSILON)
    return norm, source.wide("norm.weight")


@each_dtype
def test_without_residual_the_input_is_the_next_residual(dtype: torch.dtype) -> None:
    norm, weight = build(dtype)
    norm.set_inputs(varying(rows(1, dtype)))
    for count in (4, 1, 7):
        x = rows(count, dtype)
        normed, residual = norm(tensor(x))
        check(normed, normalise(x, weight), dtype)
        assert torch.equal(to_torch(residual), x)


@each_dtype
def test_a_residual_is_added_first_and_returned(dtype: torch.dtype) -> None:
    norm, weight = build(dtype)
    norm.set_inputs(varying(rows(1, dtype)), varying(rows(1, dtype)))
    for count in (4, 1, 7):
        x, before = rows(count, dtype), rows(count, dtype).flip(-1)
        normed, residual = norm(tensor(x), tensor(before))
        total = x.double() + before.double()
        check(residual, total, dtype)
        check(normed, normalise(total.to(dtype), weight), dtype, 2)
