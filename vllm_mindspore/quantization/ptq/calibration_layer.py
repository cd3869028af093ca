# SPDX-License-Identifier: Apache-2.0
"""Runs one decoder layer of a Native model in float32, its linear layers' inputs in view.

The cells are those that serve, one operator at a time instead of one node per layer, so that
hooks see and may replace what goes into each linear layer, and see what it caches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn

from vllm_mindspore import bridge
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.layers.layernorm import RmsNorm
from vllm_mindspore.model_executor.layers.linear import FusedLinear
from vllm_mindspore.model_executor.layers.rotary_embedding import rotary_tables
from vllm_mindspore.model_executor.models import registry
from vllm_mindspore.model_executor.models.config import DecoderConfig
from vllm_mindspore.quantization.ptq.batches import Batch, Floats, OnCache, OnInput
from vllm_mindspore.quantization.ptq.float_checkpoint import FINAL_NORM, FloatCheckpoint
from vllm_mindspore.quantization.ptq.layer_arrays import LayerArrays
from vllm_mindspore.quantization.ptq.structure import layer_name

Ints = npt.NDArray[np.int32]

_BLOCK = 16  # tokens of a cache block


@contextlib.contextmanager
def one_operator_at_a_time() -> Iterator[None]:
    """MindSpore's PyNative mode, in which hooks run; the mode before it afterwards."""
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=mode)


class CalibrationLayers:
    """Makes the layers of one model."""

    def __init__(self, checkpoint: FloatCheckpoint, max_tokens: int) -> None:
        """`max_tokens`: of the longest sequence."""
        self._checkpoint = checkpoint
        self._class: type[Any] = registry.resolve(checkpoint.hf_config.architectures).layer
        cos, sin = rotary_tables(checkpoint.config.rotary, max_tokens)
        self._tables = cos.astype(np.float32), sin.astype(np.float32)

    def layer(self, index: int) -> CalibrationLayer:
        """A decoder layer with its weights."""
        arrays = LayerArrays(self._checkpoint)
        builder = LayerBuilder(arrays, fused=True, apart=True)
        config = self._checkpoint.config
        cell = self._class(builder, layer_name(index), config, first=False)
        return CalibrationLayer(cell, arrays, config, self._tables)

    def final_norm(self, hidden: Floats) -> Floats:
        """The input of the head, of the last layer's output [T, hidden size]."""
        config = self._checkpoint.config
        builder = LayerBuilder(LayerArrays(self._checkpoint), fused=True, apart=True)
        norm = RmsNorm(builder, FINAL_NORM, config.hidden_size, config.norm_epsilon)
        normed: Floats = norm(bridge.from_numpy(hidden))[0].asnumpy()
        return normed


class _Watch:
    """What the hooks call. It knows no cell: a cycle would keep a layer's weights for longer."""

    def __init__(self) -> None:
        self.on_input: OnInput | None = None

    def see(self, cell: FusedLinear, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Shows the input of a linear layer, and replaces it by what comes back."""
        if self.on_input is None:
            return None
        replaced = self.on_input(cell.names, inputs[0].asnumpy())
        if replaced is None:
            return None
        return (bridge.from_numpy(np.ascontiguousarray(replaced)), *inputs[1:])


class CalibrationLayer:
    """One decoder layer.

    Attributes:
        arrays: tensor name -> weights, which may be changed in place.
        on_input: called with every input of linear layers.
        on_cache: called with the keys and values of every run.
    """

    def __init__(
        self,
        cell: nn.Cell,
        source: LayerArrays,
        config: DecoderConfig,
        tables: tuple[Floats, Floats],
    ) -> None:
        self.arrays = source.arrays
        self.on_cache: OnCache | None = None
        self._watch = _Watch()
        self._cell = cell
        self._tables = tables
        self._cache = _BLOCK, config.attention.num_kv_heads, config.attention.head_dim
        for _, child in cell.cells_and_names():
            if isinstance(child, FusedLinear):
                child.register_forward_pre_hook(self._watch.see)

    @property
    def on_input(self) -> OnInput | None:
        """See above."""
        return self._watch.on_input

    @on_input.setter
    def on_input(self, value: OnInput | None) -> None:
        self._watch.on_input = value

    def run(self, hidden: Floats, batch: Batch) -> Floats:
        """hidden [T, hidden size] of a batch -> that of the next layer."""
        pages = _Pages.of(batch)
        caches = [
            bridge.from_numpy(np.zeros((pages.blocks, *self._cache), np.float32)) for _ in range(2)
        ]
        y, residual = self._cell(bridge.from_numpy(hidden), None, self._inputs(pages), *caches)
        result: Floats = y.asnumpy() + residual.asnumpy()
        if self.on_cache is not None:
            self.on_cache(*(_written(cache, pages) for cache in caches))
        return result

    def _inputs(self, pages: _Pages) -> tuple[Tensor | None, ...]:
        cos, sin = (table[pages.positions] for table in self._tables)
        lengths = pages.lengths
        arrays = (pages.positions, cos, sin, pages.slots, pages.tables, lengths, lengths.copy())
        return (*(bridge.from_numpy(array) for array in arrays), None)


@dataclass(frozen=True)
class _Pages:
    """Where a batch is cached: whole blocks for each sequence, one after the other.

    Attributes:
        positions, slots: of each token, in its sequence and in the cache.
        tables: the blocks of each sequence.
        lengths: tokens of each sequence.
        blocks: how many there are.
    """

    positions: Ints
    slots: Ints
    tables: Ints
    lengths: Ints
    blocks: int

    @classmethod
    def of(cls, batch: Batch) -> _Pages:
        """Of a batch."""
        counts = [-(-length // _BLOCK) for length in batch.lengths]
        starts = np.cumsum([0, *counts[:-1]], dtype=np.int32)
        positions = np.concatenate([np.arange(n, dtype=np.int32) for n in batch.lengths])
        tables = np.zeros((len(counts), max(counts)), np.int32)
        for row, start, count in zip(tables, starts, counts, strict=True):
            row[:count] = np.arange(start, start + count)
        slots = positions + np.repeat(starts * _BLOCK, batch.lengths)
        lengths = np.array(batch.lengths, np.int32)
        return cls(positions, slots.astype(np.int32), tables, lengths, sum(counts))


def _written(cache: Tensor, pages: _Pages) -> Floats:
    """The rows [T, kv_heads * head_dim] of a batch in a cache [blocks, tokens, heads, size]."""
    rows: Floats = cache.asnumpy().reshape(pages.blocks * _BLOCK, -1)[pages.slots]
    return rows
