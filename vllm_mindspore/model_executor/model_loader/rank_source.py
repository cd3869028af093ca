# SPDX-License-Identifier: Apache-2.0
"""The tensors that one rank has of a folder which is stored rank by rank."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vllm_mindspore.model_executor.model_loader import rank_files
from vllm_mindspore.model_executor.model_loader.safetensors import SafetensorsSource
from vllm_mindspore.model_executor.model_loader.shards import PaddedVocabulary
from vllm_mindspore.quantization.sharding import Rank
from vllm_mindspore.quantization.sparse_description import SparseDescription


def source_of_rank(
    found: SparseDescription,
    rank: Rank,
    vocab_size: int,
    dtype: torch.dtype,
    unused: Sequence[str] = (),
) -> SafetensorsSource:
    """The files that were made for this rank of a model with `vocab_size` words; `unused` as
    `SafetensorsSource` has it.

    Raises:
        ValueError: there are none, or one is broken.
    """
    filled_up = PaddedVocabulary(vocab_size) if rank.count == 1 else None
    files = rank_files.select(found, rank.index)
    return SafetensorsSource(files.folder, dtype, unused, filled_up, files, found.writer)
