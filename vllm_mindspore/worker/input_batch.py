# SPDX-License-Identifier: Apache-2.0
"""From the running requests to the arrays one graph call takes. Pure functions on numpy."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class StepInputs:
    """One step's tokens, T in all, of B requests one after the other. All int32."""

    token_ids: np.ndarray
    """[T]"""
    positions: np.ndarray
    """[T] position of each token in its request, from 0."""
    slot_mapping: np.ndarray
    """[T] where each token's key and value go: block id * block size + offset."""
    block_tables: np.ndarray
    """[B, longest] block ids of each request in order."""
    context_lens: np.ndarray
    """[B] tokens of each request including this step's."""
    query_lens: np.ndarray
    """[B] tokens of each request in this step; their sum is T."""

    def arrays(self) -> list[np.ndarray]:
        """The arrays in the order in which the graph takes them."""
        return [getattr(self, field.name) for field in fields(self)]

    @property
    def query_starts(self) -> np.ndarray:
        """[B + 1] index of each request's first token; the last entry is T."""
        return np.concatenate([[0], np.cumsum(self.query_lens)]).astype(np.int32)

    def last_rows(self, counts: np.ndarray) -> np.ndarray:
        """[sum of counts] indices of each request's last `counts` tokens, counts integer [B]."""
        firsts = np.cumsum(self.query_lens) - counts
        offsets = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        rows: np.ndarray = np.repeat(firsts, counts) + offsets
        return rows.astype(np.int32)


def build_step_inputs(
    token_ids: np.ndarray,
    block_tables: np.ndarray,
    computed_tokens: np.ndarray,
    scheduled_tokens: np.ndarray,
    block_size: int,
) -> StepInputs:
    """Selects the scheduled tokens of each request.

    token_ids i32 [B, max_len] all known tokens; block_tables i32 [B, max_blocks];
    computed_tokens and scheduled_tokens i32 [B]: tokens already in the cache, and of this step.
    Raises RuntimeError if a scheduled token is not known yet.
    """
    starts = np.cumsum(scheduled_tokens) - scheduled_tokens
    requests = np.repeat(np.arange(len(scheduled_tokens)), scheduled_tokens)
    offsets = np.arange(int(scheduled_tokens.sum())) - starts[requests]
    positions = computed_tokens[requests] + offsets
    tokens = token_ids[requests, positions]
    if (tokens < 0).any():
        raise RuntimeError("the scheduler asked for a token that has not been sampled yet")
    blocks = block_tables[requests, positions // block_size]
    contexts = computed_tokens + scheduled_tokens
    longest = -(-int(contexts.max()) // block_size)
    return StepInputs(
        token_ids=tokens.astype(np.int32),
        positions=positions.astype(np.int32),
        slot_mapping=(blocks * block_size + positions % block_size).astype(np.int32),
        block_tables=np.ascontiguousarray(block_tables[:, :longest], dtype=np.int32),
        context_lens=contexts.astype(np.int32),
        query_lens=scheduled_tokens.astype(np.int32),
    )


def dummy_step_inputs(num_tokens: int, num_requests: int, block_size: int) -> StepInputs:
    """A step of `num_requests` new requests that together have `num_tokens` tokens, all of
    whose keys and values go to block 0 (vLLM's null block)."""
    query_lens = np.full(num_requests, num_tokens // num_requests, np.int32)
    query_lens[-1] += num_tokens - int(query_lens.sum())
    positions = np.concatenate([np.arange(length) for length in query_lens])
    longest = -(-int(query_lens.max()) // block_size)
    return StepInputs(
        token_ids=np.zeros(num_tokens, np.int32),
        positions=positions.astype(np.int32),
        slot_mapping=(positions % block_size).astype(np.int32),
        block_tables=np.zeros((num_requests, longest), np.int32),
        context_lens=query_lens.copy(),
        query_lens=query_lens,
    )
