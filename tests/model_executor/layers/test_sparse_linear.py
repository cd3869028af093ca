# SPDX-License-Identifier: Apache-2.0
"""Compressed weights in builtin primitives and in fused kernels: both equal the dense layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from mindspore import Parameter, ParameterTuple, Tensor, nn

from tests.model_executor.layers.weights import tensor, varying
from vllm_mindspore import bridge
from vllm_mindspore.bridge import to_torch
from vllm_mindspore.device import sparse_weights
from vllm_mindspore.device.custom_ops import custom_op
from vllm_mindspore.model_executor.layers.quantized_linear import QuantizedLinear
from vllm_mindspore.model_executor.layers.sparse_linear import SparseLinear
from vllm_mindspore.quantization.primitives import Int8s
from vllm_mindspore.quantization.schemes.base import Kind, LinearParameters

pytestmark = pytest.mark.usefixtures("mindspore_runtime")

INNER, SIZES = 300, (140, 6, 6)


def codes(size: int) -> Int8s:
    rng = np.random.default_rng(size)
    weight = rng.integers(-128, 128, (size, INNER), np.int8)
    weight[rng.random(weight.shape) < 0.5] = 0
    return weight


def parameters(weights: list[Int8s], *, bias: bool, coded: bool) -> LinearParameters:
    """Of one weight each; the values of an output depend on its place alone."""
    sizes = np.cumsum([0, *map(len, weights)])
    rng = np.random.default_rng(1)
    scales = rng.uniform(1e-4, 1e-3, sizes[-1]).astype(np.float32)
    sums = rng.integers(-99, 99, sizes[-1], np.int32)
    added = rng.standard_normal(sizes[-1]).astype(np.float16)
    parts = [slice(*pair) for pair in pairwise(sizes)]
    pairs = [sparse_weights.encode(w) for w in weights] if coded else [(w, w[:0]) for w in weights]
    streams, indexes = zip(*pairs, strict=True)
    return LinearParameters(
        Kind.DIVIDE,
        INNER,
        named("w", streams),
        named("b", [added[part] for part in parts]) if bias else (),
        named("s", [scales[part] for part in parts]),
        named("q", [sums[part] for part in parts]),
        bridge.constant("input_scale", np.full(INNER, 0.03125, np.float32)),
        bridge.constant("input_offset", np.full(INNER, 5, np.float32)),
        indexes=named("i", indexes) if coded else (),
    )


def named(name: str, values: Sequence[np.ndarray]) -> tuple[Parameter, ...]:
    return tuple(bridge.constant(f"{name}{i}", each.copy()) for i, each in enumerate(values))


class Fused(nn.Cell):
    """The node of models."""

    def __init__(self, found: LinearParameters, *, bias: bool) -> None:
        super().__init__()
        self.parameters = ParameterTuple(found.fused())
        name = "vmo_linear_bias_3" if bias else "vmo_linear_3"
        self.kernel = custom_op(name, 1 + len(self.parameters))

    def construct(self, x: Tensor) -> Tensor:
        """x [T, INNER] -> [T, sum(SIZES)]."""
        return self.kernel(x, *self.parameters)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("together", [True, False])
def test_chain_and_node_equal_the_dense_layer(bias: bool, together: bool) -> None:
    weights = [codes(size) for size in SIZES]
    given = [np.concatenate(weights)] if together else weights
    dense = parameters(given, bias=bias, coded=False)
    coded = parameters(given, bias=bias, coded=True)
    cells = [
        QuantizedLinear(dense, torch.float16),
        SparseLinear(coded, torch.float16),
        Fused(coded, bias=bias),
    ]
    for cell in cells:
        cell.set_inputs(varying(torch.empty(1, INNER, dtype=torch.float16)))
    for rows in (1, 12):
        x = torch.randn(rows, INNER).half()
        expected, *found = [to_torch(cell(tensor(x))) for cell in cells]
        assert expected.shape == (rows, sum(SIZES))
        for each in found:
            assert torch.equal(each, expected)
    assert all(len(cell.compile_cache) == 1 for cell in cells)


def test_other_dtypes_are_refused() -> None:
    found = parameters([codes(4)], bias=False, coded=True)
    with pytest.raises(ValueError, match="float16 only, the model's dtype is bfloat16"):
        SparseLinear(found, torch.bfloat16)
