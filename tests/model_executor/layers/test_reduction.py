# SPDX-License-Identifier: Apache-2.0
"""Row-parallel layers of a process that is alone: sums of one part (tests/e2e has several)."""

from __future__ import annotations

import pytest
import torch

from tests.model_executor.layers.weights import RandomSource, check, tensor, varying
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.layers.linear import build_linear
from vllm_mindspore.model_executor.layers.reduction import Reduced, over_ranks
from vllm_mindspore.quantization.sharding import Rank


def test_one_rank_needs_no_sums() -> None:
    builder = LayerBuilder(source=RandomSource(torch.float32), fused=True)
    linear = build_linear(builder, "o_proj", 8, 6)
    assert over_ranks(builder, linear) is linear


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "chain"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_part_of_sums(dtype: torch.dtype, fused: bool) -> None:
    """One graph for every number of rows."""
    source = RandomSource(dtype)
    builder = LayerBuilder(source=source, fused=fused, rank=Rank(1, 2))
    layer = over_ranks(builder, build_linear(builder, "o_proj", 8, 6))
    assert isinstance(layer, Reduced)
    layer.set_inputs(varying(torch.empty(1, 8, dtype=dtype)))
    for rows in (3, 1):
        x = torch.randn(rows, 8).to(dtype)
        check(layer(tensor(x)), x.double() @ source.wide("o_proj.weight").T, dtype)
    assert len(layer.compile_cache) == 1
