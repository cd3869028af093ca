# SPDX-License-Identifier: Apache-2.0
"""What MindSpore's inference says of RmsNormQuant, into which Ascend's graph passes join a norm and
the quantization behind it: the arguments are those the primitive chain has there."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from mindspore.ops import Primitive

WIDTH = 64


class RmsNormQuant(nn.Cell):
    """The primitive, which has no class of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.primitive = Primitive("RmsNormQuant")

    def construct(
        self, x: Tensor, gamma: Tensor, beta: Tensor, scale: Tensor, offset: Tensor
    ) -> Tensor:
        """x [T, K] -> int8 [T, K]."""
        return self.primitive(x, gamma, beta, scale, offset, 1e-6)


def export(file: Path, offset: np.ndarray) -> None:
    """Runs the front end's inference; no kernel is needed."""
    half = Tensor(np.ones(WIDTH, np.float16))
    x = Tensor(shape=[None, WIDTH], dtype=ms.float16)
    inputs = (x, half, half, half, Tensor(offset))
    ms.export(RmsNormQuant(), *inputs, file_name=str(file), file_format="MINDIR")


def test_offsets_are_int8(tmp_path: Path) -> None:
    export(tmp_path / "graph", np.zeros(WIDTH, np.int8))
    assert (tmp_path / "graph.mindir").stat().st_size > 0
    with pytest.raises(TypeError, match=r"offset_type.* must be a type of {Tensor\[Int8\]}"):
        export(tmp_path / "other", np.zeros(WIDTH, np.float16))
