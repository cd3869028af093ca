# SPDX-License-Identifier: Apache-2.0
"""The protocol between the worker and whatever runs the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vllm_mindspore.model_executor.model_loader.adapter_slots import AdapterSlots

if TYPE_CHECKING:
    import torch
    from mindspore import Tensor


@dataclass(frozen=True)
class CacheShape:
    """The key (or value) cache of one layer, without its number of blocks."""

    layer: str
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    """Of its elements."""


Classifier = Callable[["torch.Tensor"], "torch.Tensor"]
"""Hidden states [..., hidden size] -> logits [..., labels]."""


class GraphInputs(Protocol):
    """One step's arrays, in the order in which the graph takes them."""

    def arrays(self) -> list[np.ndarray]:
        """int32: token ids, positions, slot mapping, block tables, context and query lengths."""


class Backend(Protocol):
    """Runs one model on this rank."""

    weight_bytes: int
    """Memory the weights refer to."""

    classifier: Classifier | None
    """The head of a sequence classifier."""

    adapters: AdapterSlots | None
    """Room for LoRA adapters, if they are enabled."""

    def load(self) -> None:
        """Builds the model with its weights. ValueError for what does not fit or is unknown."""

    def cache_shapes(self) -> list[CacheShape]:
        """One entry per attention layer, in the order in which `bind_caches` takes them."""

    def bind_caches(
        self, key_caches: Sequence[torch.Tensor], value_caches: Sequence[torch.Tensor]
    ) -> None:
        """Sets the caches [blocks, block_size, kv_heads, head_dim] that `forward` writes."""

    def forward(self, inputs: GraphInputs, adapters: np.ndarray | None = None) -> Tensor:
        """Runs one step; the hidden states [T, hidden], possibly still being computed.

        adapters: int32 [T], the adapter slot of each token, -1 for none; given if there are slots.
        """

    def hidden_states(self, hidden: Tensor) -> torch.Tensor:
        """[T, hidden], computed, in memory of its own."""

    def logits(self, hidden: Tensor, rows: np.ndarray) -> torch.Tensor | None:
        """fp32 [R, vocab] of the hidden states' `rows` (int32 [R]), computed; None on ranks that
        do not sample, which must call it all the same."""
