# SPDX-License-Identifier: Apache-2.0
"""Folded factors leave the float function as it is, computed by torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vllm_mindspore.model_executor.models.layout import Linear
from vllm_mindspore.quantization.ptq import folding
from vllm_mindspore.quantization.ptq.smoothing import Smoothing
from vllm_mindspore.quantization.ptq.structure import Group, Rows


def wide(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values).double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_into_a_norm(dtype: torch.dtype, rng: np.random.Generator) -> None:
    """Exactly the products of before, whatever the norm's weight is rounded to."""
    group = Group((Linear("a", 12, 5), Linear("b", 12, 3)), norm="norm")
    norm = torch.from_numpy(rng.uniform(0.5, 2, 12)).to(dtype).float().numpy()
    norm[4] = 0.0
    arrays = {
        "norm": norm,
        "a.weight": rng.standard_normal((5, 12)).astype(np.float32),
        "b.weight": rng.standard_normal((3, 12)).astype(np.float32),
    }
    before = {name: wide(values.copy()) for name, values in arrays.items()}
    scale = rng.uniform(0.05, 20, 12).astype(np.float32)
    used = folding.fold(arrays, group, Smoothing(scale), dtype)
    np.testing.assert_array_equal(
        torch.from_numpy(arrays["norm"]).to(dtype).float(), arrays["norm"]
    )
    assert np.abs(used.scale / scale - 1).max() <= torch.finfo(dtype).eps
    for name in ("a.weight", "b.weight"):
        product = wide(arrays[name]) * wide(arrays["norm"])
        torch.testing.assert_close(product, before[name] * before["norm"], rtol=3e-7, atol=0)


def test_into_rows_of_grouped_heads(rng: np.random.Generator) -> None:
    """Attention that mixes tokens and repeats value heads, with biases."""
    heads, kv_heads, size, hidden = 6, 2, 4, 10
    rows = Rows("v", 0, kv_heads * size, size, heads // kv_heads)
    group = Group((Linear("o", heads * size, hidden),), rows=rows)
    arrays = {
        "v.weight": rng.standard_normal((kv_heads * size, hidden)).astype(np.float32),
        "v.bias": rng.standard_normal(kv_heads * size).astype(np.float32),
        "o.weight": rng.standard_normal((hidden, heads * size)).astype(np.float32),
    }
    x = torch.from_numpy(rng.standard_normal((7, hidden)))
    mix = torch.from_numpy(rng.uniform(0, 1, (heads, 7, 7)))

    def compute() -> torch.Tensor:
        values = torch.nn.functional.linear(x, wide(arrays["v.weight"]), wide(arrays["v.bias"]))
        per_head = values.reshape(7, kv_heads, size).transpose(0, 1)
        per_head = per_head.repeat_interleave(heads // kv_heads, dim=0)
        attended = (mix @ per_head).transpose(0, 1).reshape(7, -1)
        return attended @ wide(arrays["o.weight"]).T

    expected = compute()
    factors = rng.uniform(0.05, 20, (kv_heads, 1, size)).astype(np.float32)
    scale = np.broadcast_to(factors, (kv_heads, heads // kv_heads, size)).reshape(-1)
    kept = arrays["o.weight"].copy()
    folding.fold(arrays, group, Smoothing(scale), torch.float32)
    assert np.abs(arrays["o.weight"] / kept - 1).max() > 1
    torch.testing.assert_close(compute(), expected, rtol=1e-4, atol=1e-5)


def test_into_the_lower_rows_of_one_tensor(rng: np.random.Generator) -> None:
    rows = Rows("gate_up", 3, 3)
    group = Group((Linear("down", 3, 2),), rows=rows)
    arrays = {
        "gate_up.weight": np.ones((6, 4), np.float32),
        "down.weight": np.ones((2, 3), np.float32),
    }
    folding.fold(arrays, group, Smoothing(np.array([2, 4, 8], np.float32)), torch.float32)
    np.testing.assert_array_equal(arrays["gate_up.weight"][:, 0], [1, 1, 1, 0.5, 0.25, 0.125])
    np.testing.assert_array_equal(arrays["down.weight"][0], [2, 4, 8])


def test_nothing_takes_up_factors_of_the_heads_input() -> None:
    group = Group((Linear("lm_head", 3, 2),))
    with pytest.raises(ValueError, match="nothing before lm_head"):
        folding.fold({}, group, Smoothing.none(3), torch.float32)
