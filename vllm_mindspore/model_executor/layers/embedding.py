# SPDX-License-Identifier: Apache-2.0
"""Token embedding: rows of a table picked by token ids."""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops

from vllm_mindspore import bridge
from vllm_mindspore.device.custom_ops import custom_op
from vllm_mindspore.model_executor.layers.build import LayerBuilder


def build_embedding(builder: LayerBuilder, name: str, vocab_size: int, hidden: int) -> nn.Cell:
    """The table `name`.weight [vocab_size, hidden] with the builder's kernels."""
    kind = FusedEmbedding if builder.fused else ChainEmbedding
    return kind(builder, f"{name}.weight", (vocab_size, hidden))


class FusedEmbedding(nn.Cell):
    """Our own kernel, for which the table stays mapped whatever its dtype."""

    def __init__(self, builder: LayerBuilder, name: str, shape: tuple[int, int]) -> None:
        super().__init__()
        self.weight = builder.source.take_bits(name, shape)
        # The table may come as int16: this tells the dtype of the result.
        dtype = bridge.to_mindspore_dtype(builder.source.dtype)
        self.like = Tensor(np.zeros(1, np.float32), dtype)
        self.kernel = custom_op("vmo_embedding", 3)

    def construct(self, ids: Tensor) -> Tensor:
        """ids i32 [T] -> [T, hidden]."""
        return self.kernel(self.weight, ids, self.like)


class ChainEmbedding(nn.Cell):
    """The Gather primitive."""

    def __init__(self, builder: LayerBuilder, name: str, shape: tuple[int, int]) -> None:
        super().__init__()
        self.weight = builder.source.take(name, shape)
        self.gather = ops.Gather()

    def construct(self, ids: Tensor) -> Tensor:
        """ids i32 [T] -> [T, hidden]."""
        return self.gather(self.weight, ids, 0)
