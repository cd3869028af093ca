# SPDX-License-Identifier: Apache-2.0
"""Which weights become zero and what SparseGPT makes of the others, against plain formulas."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from vllm_mindspore.quantization.ptq import sparsifiers
from vllm_mindspore.quantization.ptq.smoothing import Smoothing
from vllm_mindspore.quantization.ptq.sparsity import Method, Pattern, Sparsity
from vllm_mindspore.quantization.ptq.statistics import InputStatistics

Array = npt.NDArray[np.floating]
ROWS, CHANNELS = 12, 160  # a block of columns and a part of one
PATTERN = Pattern(2, 4)


def inputs(rng: np.random.Generator, channels: int = CHANNELS) -> npt.NDArray[np.float32]:
    """Channels that depend on each other, of different sizes."""
    x = rng.standard_normal((600, channels)) @ rng.standard_normal((channels, channels))
    return (x * rng.lognormal(0, 1, channels)).astype(np.float32)


def seen(x: npt.NDArray[np.float32]) -> InputStatistics:
    found = InputStatistics(x.shape[1], products=True)
    for part in np.array_split(x, 3):
        found.add(part)
    return found


def weights(rng: np.random.Generator, channels: int = CHANNELS) -> npt.NDArray[np.float32]:
    return rng.standard_normal((ROWS, channels)).astype(np.float32)


def slow_sparsegpt(weight: Array, products: Array, sparsity: Sparsity) -> Array:
    """One weight after the other: when column j is reached, the inverse is that of the channels
    from j on, computed anew, and all weights behind take up what is lost."""
    w, rows, columns = weight.astype(np.float64), *weight.shape
    damped = products + 0.01 * np.trace(products) / columns * np.eye(columns)
    block = 128
    zero = np.zeros(w.shape, bool)
    inverses = [np.linalg.inv(damped[j:, j:]) for j in range(columns)]
    for j in range(columns):
        step = block if sparsity.pattern is None else sparsity.pattern.block
        if j % step == 0:
            end = min(j + step, columns)
            costs = {
                (n, k): w[n, k] ** 2 / inverses[k][0, 0] for n in range(rows) for k in range(j, end)
            }
            if sparsity.pattern is None:
                count = sparsity.zeros(rows * end) - sparsity.zeros(rows * j)
                chosen = sorted(costs, key=lambda place: costs[place])[:count]
            else:
                each = sparsity.pattern.block - sparsity.pattern.kept
                chosen = [
                    place
                    for n in range(rows)
                    for place in sorted(
                        ((n, k) for k in range(j, end)), key=lambda place: costs[place]
                    )[:each]
                ]
            for place in chosen:
                zero[place] = True
        for n in range(rows):
            if zero[n, j]:
                w[n, j:] -= w[n, j] / inverses[j][0, 0] * inverses[j][0]
                w[n, j] = 0
    return w


@pytest.mark.parametrize("pattern", [None, PATTERN], ids=str)
def test_sparsegpt_is_one_weight_after_the_other(
    pattern: Pattern | None, rng: np.random.Generator
) -> None:
    statistics, weight = seen(inputs(rng)), weights(rng)
    sparsity = Sparsity(0.5, Method.SPARSEGPT, pattern)
    found = sparsifiers.sparsified(weight, sparsity, statistics, Smoothing.none(CHANNELS))
    assert statistics.products is not None
    expected = slow_sparsegpt(weight, statistics.products, sparsity)
    np.testing.assert_array_equal(found == 0, expected == 0)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("method", [Method.MAGNITUDE, Method.WANDA])
@pytest.mark.parametrize("pattern", [None, PATTERN], ids=str)
def test_each_row_loses_its_least_important_weights(
    method: Method, pattern: Pattern | None, rng: np.random.Generator
) -> None:
    x, weight = inputs(rng), weights(rng)
    found = sparsifiers.sparsified(
        weight, Sparsity(0.5, method, pattern), seen(x), Smoothing.none(CHANNELS)
    )
    norms = np.sqrt(np.square(x.astype(np.float64)).sum(0))
    block = CHANNELS if pattern is None else pattern.block
    for row, given in zip(found, weight, strict=True):
        for first in range(0, CHANNELS, block):
            places = range(first, first + block)
            cost = {
                k: abs(float(given[k])) * (norms[k] if method is Method.WANDA else 1)
                for k in places
            }
            least = sorted(places, key=lambda k: cost[k])[: block // 2]
            assert set(np.flatnonzero(row[first : first + block] == 0) + first) == set(least)
    np.testing.assert_array_equal(found[found != 0], weight[found != 0])


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("share", [0.3, 0.37, 0.5, 0.9])
def test_exactly_as_many_zeros_as_asked_for(
    method: Method, share: float, rng: np.random.Generator
) -> None:
    sparsity = Sparsity(share, method)
    found = sparsifiers.sparsified(
        weights(rng), sparsity, seen(inputs(rng)), Smoothing.none(CHANNELS)
    )
    zeros = (found == 0).sum(1)
    if method is Method.SPARSEGPT:
        assert zeros.sum() == round(share * ROWS * CHANNELS)
    else:
        assert set(zeros) == {round(share * CHANNELS)}


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("pattern", [Pattern(2, 4), Pattern(1, 4), Pattern(4, 8), Pattern(5, 40)])
def test_a_pattern_holds_in_every_block(
    method: Method, pattern: Pattern, rng: np.random.Generator
) -> None:
    sparsity = Sparsity(pattern.share, method, pattern)
    found = sparsifiers.sparsified(
        weights(rng), sparsity, seen(inputs(rng)), Smoothing.none(CHANNELS)
    )
    kept = (found != 0).reshape(ROWS, -1, pattern.block).sum(-1)
    assert (kept == pattern.kept).all()


def output_error(found: Array, weight: Array, x: Array) -> float:
    return float(np.square(x.astype(np.float64) @ (found - weight).T).sum())


def test_errors_grow_with_the_share_and_shrink_with_the_method(rng: np.random.Generator) -> None:
    x, weight = inputs(rng), weights(rng)
    statistics, none = seen(x), Smoothing.none(CHANNELS)
    errors = {
        method: [
            output_error(
                sparsifiers.sparsified(weight, Sparsity(share, method), statistics, none), weight, x
            )
            for share in (0.3, 0.5, 0.6, 0.7, 0.9)
        ]
        for method in Method
    }
    for found in errors.values():
        assert found == sorted(found)
    for magnitude, wanda, sparsegpt in zip(*(errors[method] for method in Method), strict=True):
        assert sparsegpt < wanda < magnitude


def test_smoothed_weights_with_their_own_input_are_the_same_problem(
    rng: np.random.Generator,
) -> None:
    """Shift and scale change the statistics as they change the input."""
    x = inputs(rng, 64)
    shift, scale = x.mean(0), rng.lognormal(0, 1, 64).astype(np.float32)
    smoothing = Smoothing(scale, shift)
    statistics, changed = seen(x), seen(smoothing.apply(x))
    assert changed.products is not None
    largest = np.abs(changed.products).max()
    np.testing.assert_allclose(
        smoothing.products(statistics), changed.products, atol=1e-5 * largest
    )
    np.testing.assert_allclose(smoothing.squares(statistics), changed.squares, rtol=1e-4)
    np.testing.assert_allclose(
        smoothing.squares(statistics), np.diag(smoothing.products(statistics)), rtol=1e-6
    )


def test_an_input_that_is_all_zero(rng: np.random.Generator) -> None:
    """Nothing is known of it: the least weights go, and no number breaks."""
    weight = weights(rng, 16)
    statistics = seen(np.zeros((20, 16), np.float32))
    for method in Method:
        found = sparsifiers.sparsified(
            weight, Sparsity(0.5, method), statistics, Smoothing.none(16)
        )
        assert np.isfinite(found).all()
        assert (found == 0).sum() == weight.size // 2
