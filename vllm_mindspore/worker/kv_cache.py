# SPDX-License-Identifier: Apache-2.0
"""The key/value cache: how much memory it gets, its specification for vLLM, its buffers."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from vllm.config import VllmConfig
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheSpec

from vllm_mindspore.model_executor.backends.base import CacheShape


@dataclass(frozen=True)
class MemoryBudget:
    """What the cache size is computed from. All in bytes."""

    available: int
    """Memory that was free when the worker started."""
    utilization: float
    """The share of it that its ranks may use together."""
    num_ranks: int
    """Ranks that have it together."""
    weights: int
    activations: int
    """Measured growth of the process in a step of the largest size."""
    cap: int
    """Upper limit of the result."""

    def cache_bytes(self) -> int:
        """Memory for the cache. ValueError with the sums when nothing is left."""
        share = int(self.available * self.utilization) // self.num_ranks
        left = share - self.weights - self.activations
        if left <= 0:
            raise ValueError(
                f"no memory is left for the KV cache: {_gib(self.available)} available * "
                f"{self.utilization} (--gpu-memory-utilization) / {self.num_ranks} rank(s) = "
                f"{_gib(share)}, weights {_gib(self.weights)}, activations "
                f"{_gib(self.activations)}; free memory, raise --gpu-memory-utilization or lower "
                "--max-num-batched-tokens"
            )
        return min(left, self.cap)


def cache_cap(default_cap: int, page_bytes: int, block_size: int, max_model_len: int) -> int:
    """The default limit, but never less than one request of `max_model_len` tokens (and the
    null block) needs. `page_bytes`: one block in all layers."""
    blocks = -(-max_model_len // block_size) + 1
    return max(default_cap, blocks * page_bytes)


def cache_specs(shapes: Sequence[CacheShape], config: VllmConfig) -> dict[str, KVCacheSpec]:
    """What vLLM needs to know about each layer's cache."""
    return {
        shape.layer: FullAttentionSpec(
            block_size=config.cache_config.block_size,
            num_kv_heads=shape.num_kv_heads,
            head_size=shape.head_dim,
            dtype=shape.dtype,
        )
        for shape in shapes
    }


class KVCache:
    """The key and value buffers of all layers, each [blocks, block_size, kv_heads, head_dim].

    Memory is reserved at once but taken only when blocks are first written. Buffers that are not
    `on_host` say what the backend is to have on its own device (torch's "meta" device).
    """

    def __init__(
        self,
        shapes: Sequence[CacheShape],
        num_blocks: int,
        block_size: int,
        *,
        on_host: bool = True,
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._on_host = on_host
        self._memory: list[mmap.mmap] = []
        self._keys = [self._buffer(shape) for shape in shapes]
        self._values = [self._buffer(shape) for shape in shapes]

    @property
    def dtype(self) -> torch.dtype:
        """Of every buffer."""
        return self._keys[0].dtype

    @property
    def num_bytes(self) -> int:
        """Size of all buffers."""
        return sum(buffer.nbytes for buffer in [*self._keys, *self._values])

    def buffers(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The key and the value buffers of all layers."""
        return self._keys, self._values

    def copy_blocks(self, copies: Sequence[tuple[int, int]]) -> None:
        """Copies whole blocks (source id, destination id) in every layer.

        Raises:
            NotImplementedError: they are not on the host.
        """
        if not self._on_host:
            raise NotImplementedError(
                "vLLM asks to copy blocks of the key-value cache, which are on the NPU and cannot "
                "be copied yet: start with --no-enable-prefix-caching"
            )
        for source, destination in copies:
            for buffer in [*self._keys, *self._values]:
                buffer[destination] = buffer[source]

    def release(self) -> None:
        """Gives memory of the host back to the system; the buffers stay where they are, zeroed."""
        for memory in self._memory:
            memory.madvise(mmap.MADV_DONTNEED)

    def _buffer(self, shape: CacheShape) -> torch.Tensor:
        """Zeroed, page-aligned memory that the system backs by huge pages where it can."""
        dims = (self.num_blocks, self.block_size, shape.num_kv_heads, shape.head_dim)
        if not self._on_host:
            return torch.empty(dims, dtype=shape.dtype, device="meta")
        count = int(np.prod(dims))
        memory = _reserve(count * shape.dtype.itemsize)
        self._memory.append(memory)
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
        return torch.frombuffer(memory, dtype=shape.dtype, count=count).reshape(dims)


def num_blocks(config: KVCacheConfig, config_block_size: int) -> int:
    """Blocks of the single cache group; RuntimeError if vLLM made several groups."""
    groups = config.kv_cache_groups
    if len(groups) != 1 or groups[0].kv_cache_spec.block_size != config_block_size:
        raise RuntimeError(
            f"expected one KV cache group of block size {config_block_size}, found "
            f"{[group.kv_cache_spec for group in groups]}"
        )
    return int(config.num_blocks)


def _reserve(num_bytes: int) -> mmap.mmap:
    try:
        return mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise ValueError(
            f"the system cannot reserve {_gib(num_bytes)} for one layer's KV cache buffer "
            f"({error}); lower --kv-cache-memory-bytes, --num-gpu-blocks-override or "
            "--gpu-memory-utilization"
        ) from error


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 30):.2f} GiB"
