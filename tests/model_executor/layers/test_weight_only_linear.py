# SPDX-License-Identifier: Apache-2.0
"""Weights that are quantized alone, in builtin primitives: against float64 products with the
weights that the codes stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.model_executor.layers.weights import check, tensor, varying
from tests.quantization import weight_only
from tests.quantization.schemes.folders import load, stored
from vllm_mindspore.model_executor.layers.weight_only_linear import WeightOnlyLinear
from vllm_mindspore.quantization.description import GROUP_SIZES, WEIGHT_INT4, WEIGHT_INT8, Tool
from vllm_mindspore.quantization.ptq.linears import Linear, Tensors
from vllm_mindspore.quantization.schemes.w4a16 import W4A16
from vllm_mindspore.quantization.schemes.w8a16 import W8A16
from vllm_mindspore.quantization.schemes.weight_scales import Form

INNER, SIZES = 128, {"q": 6, "k": 2, "v": 4}


def make_layers(kind: str, group_size: int, *, bias: bool) -> dict[str, Tensors]:
    rng = np.random.default_rng(0)
    layers = {}
    for name, size in SIZES.items():
        weight = rng.standard_normal((size, INNER)).astype(np.float32)
        linear = Linear(weight, rng.standard_normal(size).astype(np.float32) if bias else None)
        layers[name] = weight_only.store(linear, kind, Tool.GOLDEN_STICK, group_size)
    return layers


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", [WEIGHT_INT8, WEIGHT_INT4])
@pytest.mark.parametrize(("group_size", "bias", "offset"), [(0, True, 0), (64, False, -3)])
def test_projections_are_side_by_side(
    tmp_path: Path, dtype: torch.dtype, kind: str, group_size: int, bias: bool, offset: int
) -> None:
    layers = make_layers(kind, group_size, bias=bias)
    for parts in layers.values():
        parts["weight_offset"] = parts["weight_offset"] + offset
    files = {name: stored(parts, Tool.GOLDEN_STICK, dtype) for name, parts in layers.items()}
    form = Form(GROUP_SIZES, turned=True)
    int4 = kind == WEIGHT_INT4
    scheme = W4A16(form, Tool.GOLDEN_STICK) if int4 else W8A16(form)
    cell = WeightOnlyLinear(load(tmp_path, scheme, files, bias=bias, dtype=dtype, int4=int4), dtype)
    cell.set_inputs(varying(torch.empty(1, INNER, dtype=dtype)))
    values = [weight_only.values(parts, kind, Tool.GOLDEN_STICK) for parts in layers.values()]
    weight = torch.from_numpy(np.concatenate(values)).double()
    for rows in (3, 1):
        x = torch.randn(rows, INNER).to(dtype)
        expected = x.double() @ weight.T
        if bias:
            expected += torch.cat([parts["bias"].double() for parts in files.values()])
        check(cell(tensor(x)), expected, dtype, 1)
    assert len(cell.compile_cache) == 1


def test_one_projection_stays_mapped(tmp_path: Path) -> None:
    parts = stored(make_layers(WEIGHT_INT8, 0, bias=False)["q"], Tool.GOLDEN_STICK, torch.float16)
    scheme = W8A16(Form(GROUP_SIZES, turned=True))
    found = load(tmp_path, scheme, {"q": parts}, dtype=torch.float16)
    assert WeightOnlyLinear(found, torch.float16).weight is found.weights[0]
