# SPDX-License-Identifier: Apache-2.0
"""Cache sizes are arithmetic that a reader can check; buffers are what the graph expects."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import Configure
from vllm_mindspore.model_executor.backends.base import CacheShape
from vllm_mindspore.worker.kv_cache import KVCache, MemoryBudget, cache_cap, cache_specs

GIB = 1 << 30


def _budget(**changes: float) -> MemoryBudget:
    values = {
        "available": 20 * GIB,
        "utilization": 0.5,
        "num_ranks": 2,
        "weights": GIB,
        "activations": GIB,
        "cap": 100 * GIB,
    }
    return MemoryBudget(**(values | changes))  # type: ignore[arg-type]


def test_share_of_a_rank_minus_weights_and_activations() -> None:
    assert _budget().cache_bytes() == 3 * GIB


def test_cap_limits_the_result() -> None:
    assert _budget(cap=2 * GIB).cache_bytes() == 2 * GIB


def test_nothing_left_names_the_sums() -> None:
    with pytest.raises(ValueError, match=r"5\.00 GiB, weights 4\.50 GiB, activations 1\.00 GiB"):
        _budget(weights=int(4.5 * GIB)).cache_bytes()


def test_cap_always_fits_one_longest_request() -> None:
    assert cache_cap(4 * GIB, page_bytes=1024, block_size=16, max_model_len=4096) == 4 * GIB
    page = 16 * 147456
    needed = (32768 // 16 + 1) * page
    assert cache_cap(4 * GIB, page_bytes=page, block_size=16, max_model_len=32768) == needed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8])
def test_buffers_are_zeroed_and_aligned(dtype: torch.dtype) -> None:
    shapes = [CacheShape(f"layer.{index}", 2, 24, dtype) for index in range(3)]
    cache = KVCache(shapes, num_blocks=5, block_size=16)
    assert cache.dtype == dtype
    assert cache.num_bytes == 3 * 2 * 5 * 16 * 2 * 24 * dtype.itemsize
    keys, values = cache.buffers()
    assert [tuple(tensor.shape) for tensor in keys + values] == [(5, 16, 2, 24)] * 6
    assert all(tensor.data_ptr() % 4096 == 0 for tensor in keys + values)
    assert len({tensor.data_ptr() for tensor in keys + values}) == 6
    assert not any(tensor.any() for tensor in keys + values)


def test_copy_blocks_copies_every_layer() -> None:
    shapes = [CacheShape("layer.0", 1, 8, torch.float32)]
    cache = KVCache(shapes, num_blocks=4, block_size=16)
    for buffer in [*cache._keys, *cache._values]:
        buffer[1] = 7.0
    cache.copy_blocks([(1, 3)])
    for buffer in [*cache._keys, *cache._values]:
        assert (buffer[3] == 7.0).all()
        assert (buffer[2] == 0.0).all()


def test_buffers_of_an_npu_are_shapes() -> None:
    shapes = [CacheShape("layer.0", 2, 24, torch.float16)]
    cache = KVCache(shapes, num_blocks=1 << 20, block_size=16, on_host=False)
    keys, values = cache.buffers()
    for buffer in (*keys, *values):
        assert buffer.is_meta
        assert (buffer.shape, buffer.dtype) == ((1 << 20, 16, 2, 24), torch.float16)
    assert cache.num_bytes == 2 * (1 << 20) * 16 * 2 * 24 * 2
    with pytest.raises(NotImplementedError, match="start with --no-enable-prefix-caching"):
        cache.copy_blocks([(1, 3)])


def test_int8_counts_a_byte_per_element(configure: Configure) -> None:
    config = configure(dtype="bfloat16")
    sizes = {}
    for dtype in (torch.int8, torch.bfloat16):
        specs = cache_specs([CacheShape("layer.0", 2, 24, dtype)], config)
        assert specs["layer.0"].dtype == dtype
        sizes[dtype] = specs["layer.0"].page_size_bytes
    assert sizes[torch.int8] == 2 * 16 * 2 * 24
    assert sizes[torch.bfloat16] == 2 * sizes[torch.int8]
