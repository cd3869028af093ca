# SPDX-License-Identifier: Apache-2.0
"""Factors of smoothing against the formula in torch, and what they leave unchanged."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vllm_mindspore.quantization.ptq import smoothing
from vllm_mindspore.quantization.ptq.smoothing import Smoothing
from vllm_mindspore.quantization.ptq.statistics import InputStatistics
from vllm_mindspore.quantization.ptq.structure import Rows


@pytest.mark.parametrize("alpha", [0.0, 0.35, 0.5, 0.95])
def test_the_formula(alpha: float, rng: np.random.Generator) -> None:
    x = torch.from_numpy(rng.standard_normal((30, 16)) * rng.uniform(0.01, 50, 16))
    weights = [torch.from_numpy(rng.standard_normal((rows, 16))) for rows in (5, 9)]
    w = torch.cat(weights).abs().amax(0)
    expected = x.abs().amax(0).pow(alpha) / w.pow(1 - alpha)
    statistics = InputStatistics(16)
    statistics.add(x.float().numpy())
    largest = smoothing.largest_weights([weight.float().numpy() for weight in weights])
    found = smoothing.smooth_scale(statistics.largest(), largest, alpha)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


def test_channels_without_values_stay_and_tiny_factors_do_not_vanish() -> None:
    inputs = np.array([0, 3, 1e-30, 2], np.float32)
    weights = np.array([5, 0, 1, 2], np.float32)
    found = smoothing.smooth_scale(inputs, weights, 0.5)
    np.testing.assert_array_equal(found, np.array([1, 1, 1e-5, 1], np.float32))


def test_grouped_heads_share_a_factor(rng: np.random.Generator) -> None:
    """Two heads of keys with 3 channels, each feeding two heads of the input."""
    rows = Rows("v", 0, 6, head_dim=3, repeats=2)
    values = rng.uniform(1, 2, 12).astype(np.float32)
    shared = smoothing.over_heads(values, rows)
    for head in range(4):
        for channel in range(3):
            pair = [values[(head // 2 * 2 + i) * 3 + channel] for i in range(2)]
            assert shared[head * 3 + channel] == max(pair)
    np.testing.assert_array_equal(
        smoothing.row_factors(shared, rows), np.concatenate([shared[:3], shared[6:9]])
    )
    assert smoothing.over_heads(values, None) is values


def test_changing_and_undoing(rng: np.random.Generator) -> None:
    x = rng.standard_normal((40, 8)).astype(np.float32) + 3
    statistics = InputStatistics(8)
    statistics.add(x)
    centre = smoothing.centre(statistics)
    changed = Smoothing(rng.uniform(0.1, 9, 8).astype(np.float32), centre)
    y = changed.apply(x)
    np.testing.assert_allclose(y.min(0), -y.max(0), rtol=1e-4)
    np.testing.assert_allclose(changed.undo(y), x, rtol=1e-5)
    assert changed.range(statistics) == pytest.approx((y.min(), y.max()), rel=1e-6)
    low, high = Smoothing.none(8).range(statistics)
    assert (low, high) == (x.min(), x.max())
