# SPDX-License-Identifier: Apache-2.0
"""Scales of an int8 cache: no code is cut, and half a step is lost."""

from __future__ import annotations

import numpy as np
import pytest

from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.ptq import kv_cache


def rows(rng: np.random.Generator) -> np.ndarray:
    """Channels of very different sizes, one of them without a value."""
    sizes = np.array([1e-3, 1.0, 50.0, 0.0, 7.0], np.float32)
    return (rng.standard_normal((40, 5)) * sizes).astype(np.float32)


def test_codes_reach_the_end_and_stand_for_the_values(rng: np.random.Generator) -> None:
    seen = rows(rng)
    found = kv_cache.tensors(kv_cache.largest_magnitudes(seen))
    scale, offset = found["kv_cache_scale"], found["kv_cache_offset"]
    assert {v.dtype for v in found.values()} == {np.dtype(np.float32)}
    assert not offset.any()
    codes = primitives.quantize(seen, scale, offset)  # type: ignore[arg-type]
    assert np.abs(codes.astype(int)).max(axis=0).tolist() == [127, 127, 127, 0, 127]
    restored = primitives.restore(codes, scale, offset)  # type: ignore[arg-type]
    assert (np.abs(restored - seen) <= 0.5001 * scale).all()


def test_several_batches_are_one(rng: np.random.Generator) -> None:
    seen = rows(rng)
    first = kv_cache.largest_magnitudes(seen[:7])
    both = kv_cache.largest_magnitudes(seen[7:], first)
    np.testing.assert_array_equal(both, kv_cache.largest_magnitudes(seen))
    np.testing.assert_array_equal(kv_cache.largest_magnitudes(seen[:0], first), first)


def test_scales_are_above_zero() -> None:
    found = kv_cache.tensors(np.array([0.0, 1e-44], np.float32))
    assert found["kv_cache_scale"][0] == 1
    assert found["kv_cache_scale"][1] > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(bad: float, rng: np.random.Generator) -> None:
    seen = rows(rng)
    seen[3, 1] = bad
    with pytest.raises(ValueError, match="expected finite keys and values"):
        kv_cache.largest_magnitudes(seen)
