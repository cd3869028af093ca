# SPDX-License-Identifier: Apache-2.0
"""Token embedding: the table's rows, bit for bit, and the table stays where it is."""

from __future__ import annotations

import mindspore as ms
import pytest
import torch
from mindspore import Tensor

from tests.model_executor.layers.weights import KERNELS, RandomSource
from vllm_mindspore import bridge
from vllm_mindspore.device.kernel_library import kernel_library
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.layers.embedding import build_embedding
from vllm_mindspore.quantization.sharding import Rank

VOCABULARY, HIDDEN = 40, 24


@pytest.mark.parametrize(
    ("dtype", "fused"), [kernel[1:] for kernel in KERNELS], ids=[kernel[0] for kernel in KERNELS]
)
def test_rows_of_the_table(dtype: torch.dtype, fused: bool) -> None:
    source = RandomSource(dtype)
    layer = build_embedding(
        LayerBuilder(source=source, fused=fused), "embed_tokens", VOCABULARY, HIDDEN
    )
    layer.set_inputs(Tensor(shape=[None], dtype=ms.int32))
    for ids in ([3], [39, 0, 7, 7]):
        found = bridge.to_torch(layer(Tensor(ids, ms.int32)))
        assert found.dtype == dtype
        assert torch.equal(found, source.weights["embed_tokens.weight"][ids])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_fused_table_is_not_copied(dtype: torch.dtype) -> None:
    """A change of the mapped memory shows in the next call."""
    source = RandomSource(dtype)
    builder = LayerBuilder(source=source, fused=True)
    layer = build_embedding(builder, "embed_tokens", VOCABULARY, HIDDEN)
    layer.set_inputs(Tensor(shape=[None], dtype=ms.int32))
    for value in (1, 2, 3):
        source.weights["embed_tokens.weight"].fill_(value)
        found = bridge.to_torch(layer(Tensor([5], ms.int32)))
        assert torch.equal(found, torch.full((1, HIDDEN), value, dtype=dtype))


@pytest.mark.parametrize(
    ("dtype", "fused"), [kernel[1:] for kernel in KERNELS], ids=[kernel[0] for kernel in KERNELS]
)
def test_rows_of_other_ranks_are_zeros(dtype: torch.dtype, fused: bool) -> None:
    """They would be added; this process is alone."""
    source, rank = RandomSource(dtype), Rank(1, 2)
    builder = LayerBuilder(source=source, fused=fused, rank=rank)
    layer = build_embedding(builder, "embed_tokens", VOCABULARY // 2, HIDDEN)
    layer.set_inputs(Tensor(shape=[None], dtype=ms.int32))
    found = bridge.to_torch(layer(Tensor([39, 0, 20, 19, 20], ms.int32)))
    assert found.dtype == dtype
    table = source.weights["embed_tokens.weight"]
    zeros = torch.zeros(HIDDEN, dtype=dtype)
    assert torch.equal(found, torch.stack([table[19], zeros, table[0], zeros, table[0]]))


@pytest.mark.parametrize("token", [-1, VOCABULARY])
def test_ids_of_no_rank_are_refused(token: int) -> None:
    builder = LayerBuilder(source=RandomSource(torch.float32), fused=True, rank=Rank(1, 2))
    layer = build_embedding(builder, "embed_tokens", VOCABULARY // 2, HIDDEN)
    layer.set_inputs(Tensor(shape=[None], dtype=ms.int32))
    with pytest.raises(RuntimeError):
        layer(Tensor([token], ms.int32)).asnumpy()
    assert f"ids[0] is {token}; expected a value from 0 to 39" in kernel_library().last_error()
