# SPDX-License-Identifier: Apache-2.0
"""That a folder which is converted could be served: it is loaded as an engine does, without one."""

from __future__ import annotations

import torch

from vllm_mindspore.conversion.whole import Model
from vllm_mindspore.device.soc import Device
from vllm_mindspore.model_executor.model_loader import rank_files
from vllm_mindspore.model_executor.model_loader.rank_source import source_of_rank
from vllm_mindspore.model_executor.model_loader.safetensors import SafetensorsSource
from vllm_mindspore.model_executor.models.layout import UNUSED, Layout, fused_sizes, layout_of
from vllm_mindspore.quantization.description import Description
from vllm_mindspore.quantization.plan import Plan, plan_of
from vllm_mindspore.quantization.schemes.base import Projections
from vllm_mindspore.quantization.sharding import Rank
from vllm_mindspore.quantization.sparse_description import SparseDescription


def check_whole(model: Model, found: Description) -> None:
    """That one rank loads it.

    Raises:
        ValueError: names every tensor that is missing, extra, of another shape or dtype, or has
            values that nothing can be computed with.
    """
    dtype = getattr(model.hf_config, "dtype", None) or torch.float32
    source = SafetensorsSource(model.folder, dtype, UNUSED, writer=found.writer)
    _load(source, plan_of(found), model.layout)


def check_ranks(model: Model, found: SparseDescription) -> None:
    """That each of the ranks which it was made for loads its part.

    Raises:
        ValueError: as `check_whole`, and for an index or a stream that is broken, for headers that
            the description does not speak of, and for a number of ranks that does not divide the
            model.
    """
    ranks = [Rank(index, len(found.blocks)) for index in range(len(found.blocks))]
    layout = layout_of(model.hf_config.model_type, model.config.of_rank(ranks[0]))
    rank_files.check(found, fused_sizes(layout), Device.CPU, decode=True)
    for rank in ranks:
        source = source_of_rank(found, rank, model.config.vocab_size, torch.float16, UNUSED)
        _load(source, plan_of(found, rank), layout)


def _load(source: SafetensorsSource, plan: Plan, layout: Layout) -> None:
    for group in layout.linears:
        names = tuple(linear.name for linear in group)
        sizes = tuple(linear.out_features for linear in group)
        asked = Projections(names, group[0].in_features, sizes, group[0].bias)
        plan.scheme(names).parameters(source, asked)
    for name, shape in layout.floats.items():
        source.take_bits(name, shape)
    source.finish()
