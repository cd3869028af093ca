# SPDX-License-Identifier: Apache-2.0
"""Scales of an int8 cache: no code is cut, and half a step is lost."""

from __future__ import annotations

import numpy as np
import pytest

from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.ptq import kv_cache
from vllm_mindspore.quantization.ptq.kv_cache import CacheStatistics

KEYS, VALUES = "model.layers.3.self_attn.k_proj", "model.layers.3.self_attn.v_proj"


def rows(rng: np.random.Generator) -> np.ndarray:
    """Channels of very different sizes, one of them without a value."""
    sizes = np.array([1e-3, 1.0, 50.0, 0.0, 7.0], np.float32)
    return (rng.standard_normal((40, 5)) * sizes).astype(np.float32)


def statistics(*batches: tuple[np.ndarray, np.ndarray]) -> CacheStatistics:
    seen = CacheStatistics(5)
    for keys, values in batches:
        seen.add(keys, values)
    return seen


def test_codes_reach_the_end_and_stand_for_the_values(rng: np.random.Generator) -> None:
    keys, values = rows(rng), rows(rng) * 3
    found, reports = statistics((keys, values)).quantized("model.layers.3.self_attn")
    assert list(found) == [report.name for report in reports] == [KEYS, VALUES]
    for name, seen in ((KEYS, keys), (VALUES, values)):
        scale, offset = found[name]["kv_cache_scale"], found[name]["kv_cache_offset"]
        assert {v.dtype for v in found[name].values()} == {np.dtype(np.float32)}
        assert not offset.any()
        codes = primitives.quantize(seen, scale, offset)  # type: ignore[arg-type]
        assert np.abs(codes.astype(int)).max(axis=0).tolist() == [127, 127, 127, 0, 127]
        restored = primitives.restore(codes, scale, offset)  # type: ignore[arg-type]
        assert (np.abs(restored - seen) <= 0.5001 * scale).all()


def test_reports_say_what_is_lost(rng: np.random.Generator) -> None:
    keys, codes = rows(rng), rng.integers(-127, 128, (40, 5)).astype(np.float32)
    codes[0] = 127
    _, (lossy, exact) = statistics((keys, codes * 0.25)).quantized("model.layers.3.self_attn")
    assert lossy.sqnr_db is not None
    assert 35 < lossy.sqnr_db < 55  # 127 steps: some 40 dB
    assert exact.sqnr_db is None
    assert (exact.scale.min, exact.scale.max) == (0.25, 0.25)


def test_several_batches_are_one(rng: np.random.Generator) -> None:
    seen = rows(rng)
    both, _ = statistics((seen[:7], seen[:7]), (seen[7:], seen[7:])).quantized("a")
    whole, _ = statistics((seen, seen)).quantized("a")
    for name, parts in both.items():
        for last, values in parts.items():
            np.testing.assert_array_equal(values, whole[name][last])


def test_scales_are_above_zero() -> None:
    found = kv_cache.tensors(np.array([0.0, 1e-44], np.float32))
    assert found["kv_cache_scale"][0] == 1
    assert found["kv_cache_scale"][1] > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(bad: float, rng: np.random.Generator) -> None:
    seen = rows(rng)
    seen[3, 1] = bad
    with pytest.raises(ValueError, match=r"a\.v_proj: expected finite keys and values"):
        statistics((rows(rng), seen)).quantized("a")
