# SPDX-License-Identifier: Apache-2.0
"""Step arrays against a token-by-token derivation."""

from __future__ import annotations

import numpy as np
import pytest

from vllm_mindspore.worker.input_batch import build_step_inputs, dummy_step_inputs


def _random_batch(
    rng: np.random.Generator, block_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, block tables, computed and scheduled counts of a mixed batch."""
    requests, max_len = 5, 6 * block_size
    computed = np.array([0, 1, block_size, block_size - 1, 3 * block_size + 2], np.int32)
    scheduled = np.array([block_size + 3, 1, 1, 2, 7], np.int32)
    tokens = rng.integers(0, 1000, (requests, max_len)).astype(np.int32)
    blocks = rng.permutation(requests * 6).reshape(requests, 6).astype(np.int32)
    return tokens, blocks, computed, scheduled


@pytest.mark.parametrize("block_size", [16, 32, 64, 128])
def test_step_inputs_follow_each_token(block_size: int) -> None:
    tokens, blocks, computed, scheduled = _random_batch(np.random.default_rng(0), block_size)
    step = build_step_inputs(tokens, blocks, computed, scheduled, block_size)
    last = step.last_rows(np.ones(len(computed), np.int64))
    row = 0
    for request, (start, count) in enumerate(zip(computed, scheduled, strict=True)):
        assert step.query_starts[request] == row
        for position in range(start, start + count):
            assert step.token_ids[row] == tokens[request, position]
            assert step.positions[row] == position
            slot = blocks[request, position // block_size] * block_size + position % block_size
            assert step.slot_mapping[row] == slot
            row += 1
        assert last[request] == row - 1
        assert step.context_lens[request] == start + count
        used = -(-int(start + count) // block_size)
        np.testing.assert_array_equal(step.block_tables[request, :used], blocks[request, :used])
    assert row == len(step.token_ids) == step.query_starts[-1]
    assert all(array.dtype == np.int32 for array in step.arrays())


def test_block_tables_stop_at_the_longest_request() -> None:
    tokens, blocks, computed, scheduled = _random_batch(np.random.default_rng(1), 16)
    step = build_step_inputs(tokens, blocks, computed, scheduled, 16)
    assert step.block_tables.shape == (5, -(-int((computed + scheduled).max()) // 16))


def test_a_token_that_is_not_known_yet_is_an_error() -> None:
    tokens = np.full((1, 8), -1, np.int32)
    one = np.ones(1, np.int32)
    with pytest.raises(RuntimeError, match="not been sampled"):
        build_step_inputs(tokens, np.zeros((1, 1), np.int32), one, one, 16)


@pytest.mark.parametrize(("tokens", "requests"), [(1, 1), (16, 1), (37, 5), (16384, 256)])
def test_dummy_step_is_consistent(tokens: int, requests: int) -> None:
    step = dummy_step_inputs(tokens, requests, 16)
    assert len(step.token_ids) == len(step.positions) == step.query_lens.sum() == tokens
    assert step.block_tables.shape[1] * 16 >= step.context_lens.max()
    assert step.slot_mapping.max() < 16


def test_last_rows_are_those_before_the_next_request() -> None:
    step = dummy_step_inputs(num_tokens=10, num_requests=3, block_size=16)  # 3, 3 and 4 tokens
    assert step.last_rows(np.array([1, 3, 2])).tolist() == [2, 3, 4, 5, 8, 9]
