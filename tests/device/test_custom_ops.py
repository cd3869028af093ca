# SPDX-License-Identifier: Apache-2.0
"""A function of the kernel library is an operator of a graph whose sizes vary."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from vllm_mindspore.device.custom_ops import custom_op

pytestmark = pytest.mark.usefixtures("mindspore_runtime")


class Projections(nn.Cell):
    """Two projections in one node."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = custom_op("vmo_linear_2", 3)

    def construct(self, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """x [T, 8] -> [T, both sizes]."""
        return self.linear(x, first, second)


def test_one_graph_serves_every_number_of_rows() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((size, 8)).astype(np.float32) for size in (4, 6))
    cell = Projections()
    weights = [Tensor(first), Tensor(second)]
    cell.set_inputs(Tensor(shape=[None, 8], dtype=ms.float32), *weights)
    for rows in (3, 1, 7):
        x = rng.standard_normal((rows, 8)).astype(np.float32)
        found = cell(Tensor(x), *weights).asnumpy()
        expected = np.concatenate([x @ first.T, x @ second.T], axis=1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert len(cell.compile_cache) == 1
