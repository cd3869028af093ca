# SPDX-License-Identifier: Apache-2.0
"""Round trips of activations, scales of ranges, and the measure of noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vllm_mindspore.quantization.description import DYNAMIC, STATIC, WEIGHT_INT8, Tool
from vllm_mindspore.quantization.ptq import fake_quantization


@pytest.mark.parametrize("tool", Tool)
def test_static_round_trip_is_within_half_a_step(tool: Tool, rng: np.random.Generator) -> None:
    x = rng.uniform(-1, 3, (50, 20)).astype(np.float32)
    scale, widened = fake_quantization.static_scale(
        float(x.min()), float(x.max()), tool, torch.float32
    )
    assert not widened
    error = np.abs(fake_quantization.activations(x, STATIC, scale) - x)
    assert 0.4 * scale.scale < error.max() <= 0.501 * scale.scale


@pytest.mark.parametrize(("low", "high"), [(5.0, 6.0), (-6.0, -5.0)])
def test_a_range_of_one_sign_is_widened_to_hold_zero(low: float, high: float) -> None:
    scale, widened = fake_quantization.static_scale(low, high, Tool.GOLDEN_STICK, torch.float32)
    assert widened
    assert scale.scale == pytest.approx(6.0 / 255)
    assert scale.offset in (-128, 127)
    _, widened = fake_quantization.static_scale(low, high, Tool.MODELSLIM, torch.float32)
    assert not widened  # its ranges hold zero anyway


def test_golden_sticks_scale_is_one_that_the_dtype_stores() -> None:
    scale, _ = fake_quantization.static_scale(-1.0, 2.1, Tool.GOLDEN_STICK, torch.bfloat16)
    assert scale.scale == float(torch.tensor(3.1 / 255).bfloat16())
    exact, _ = fake_quantization.static_scale(-1.0, 2.1, Tool.MODELSLIM, torch.bfloat16)
    assert exact.scale == pytest.approx(3.1 / 255, rel=1e-12)


def test_each_token_has_its_scale(rng: np.random.Generator) -> None:
    x = (rng.standard_normal((9, 30)) * 10.0 ** np.arange(-4, 5)[:, None]).astype(np.float32)
    steps = np.abs(x).max(1, keepdims=True) / 127
    found = fake_quantization.activations(x, DYNAMIC, None)
    assert (np.abs(found - x) <= 0.501 * steps).all()
    np.testing.assert_array_equal(fake_quantization.activations(x, WEIGHT_INT8, None), x)


def test_noise_in_decibels(rng: np.random.Generator) -> None:
    exact = rng.standard_normal(100_000).astype(np.float32)
    noise = rng.standard_normal(100_000).astype(np.float32) / 100
    assert fake_quantization.sqnr(exact, exact + noise) == pytest.approx(40, abs=0.1)
    assert fake_quantization.sqnr(exact, exact) is None
