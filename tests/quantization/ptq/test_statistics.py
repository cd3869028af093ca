# SPDX-License-Identifier: Apache-2.0
"""Ranges of channels over batches, and the rows that are kept."""

from __future__ import annotations

import numpy as np

from vllm_mindspore.quantization.ptq.statistics import InputStatistics


def test_ranges_over_batches(rng: np.random.Generator) -> None:
    x = rng.standard_normal((100, 7)).astype(np.float32)
    found = InputStatistics(7)
    for part in np.split(x, [1, 40, 90]):
        found.add(part)
    np.testing.assert_array_equal(found.low, x.min(0))
    np.testing.assert_array_equal(found.high, x.max(0))
    np.testing.assert_array_equal(found.largest(), np.abs(x).max(0))
    assert found.tokens == 100


def test_rows_are_a_limited_part_of_every_batch(rng: np.random.Generator) -> None:
    found = InputStatistics(3)
    batches = [rng.standard_normal((200, 3)).astype(np.float32) for _ in range(20)]
    for part in batches:
        found.add(part)
    rows = found.rows()
    assert rows.shape == (512, 3)
    for part in batches[:8]:
        assert (rows[:, None] == part[None]).all(-1).any(0).sum() == 64
