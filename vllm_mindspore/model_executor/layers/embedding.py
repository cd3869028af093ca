# SPDX-License-Identifier: Apache-2.0
"""Token embedding: rows of a table picked by token ids, a table that ranks may share."""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops

from vllm_mindspore import bridge
from vllm_mindspore.device.custom_ops import custom_op
from vllm_mindspore.model_executor.layers.build import LayerBuilder


def build_embedding(builder: LayerBuilder, name: str, vocab_size: int, hidden: int) -> nn.Cell:
    """The table `name`.weight, of which this rank has [vocab_size, hidden], with the builder's
    kernels."""
    if builder.rank.count > 1:
        kind = FusedEmbeddingPart if builder.fused else ChainEmbeddingPart
    else:
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


class FusedEmbeddingPart(nn.Cell):
    """The rows that this rank has, and those of the others, in one node."""

    def __init__(self, builder: LayerBuilder, name: str, shape: tuple[int, int]) -> None:
        super().__init__()
        rank = builder.rank
        self.weight = builder.source.take_bits(name, shape)
        dtype = bridge.to_mindspore_dtype(builder.source.dtype)
        self.like = Tensor(np.zeros(1, np.float32), dtype)
        part = [rank.index * shape[0], rank.count * shape[0]]
        self.part = Tensor(np.array(part, np.int32))
        self.kernel = custom_op("vmo_embedding_part", 4)

    def construct(self, ids: Tensor) -> Tensor:
        """ids i32 [T] -> [T, hidden]."""
        return self.kernel(self.weight, ids, self.like, self.part)


class ChainEmbeddingPart(nn.Cell):
    """The same in primitives: zeros for rows of other ranks, then the sum."""

    def __init__(self, builder: LayerBuilder, name: str, shape: tuple[int, int]) -> None:
        super().__init__()
        self.weight = builder.source.take(name, shape)
        self.dtype = bridge.to_mindspore_dtype(builder.source.dtype)
        self.first, self.rows = builder.rank.index * shape[0], shape[0]
        self.gather = ops.Gather()
        self.reduce = ops.AllReduce()

    def construct(self, ids: Tensor) -> Tensor:
        """ids i32 [T] -> [T, hidden]."""
        own = ids - self.first
        present = ops.logical_and(own >= 0, own < self.rows)
        rows = self.gather(self.weight, own * present.astype(ids.dtype), 0)
        return self.reduce(rows * present.astype(self.dtype).reshape(-1, 1))
