# SPDX-License-Identifier: Apache-2.0
"""Draft tokens for speculative decoding, looked up in the request's own tokens.

Prompt lookup (https://github.com/apoorvumang/prompt-lookup-decoding): what followed an earlier
occurrence of the last n tokens is likely to follow them again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from vllm.config import SpeculativeConfig


@dataclass(frozen=True)
class NgramProposer:
    """Proposes what followed the earliest occurrence of the longest matching n-gram."""

    shortest: int
    """Tokens that must match at least."""
    longest: int
    """Tokens that are compared at most."""

    @classmethod
    def from_config(cls, config: SpeculativeConfig) -> NgramProposer:
        """With the window of `prompt_lookup_min` to `prompt_lookup_max` tokens."""
        assert config.prompt_lookup_min is not None
        assert config.prompt_lookup_max is not None
        return cls(config.prompt_lookup_min, config.prompt_lookup_max)

    def propose(self, token_ids: np.ndarray, count: int) -> list[int]:
        """Up to `count` tokens that may follow token_ids, integers [T]; none without a match."""
        if count <= 0:
            return []
        for size in range(min(self.longest, len(token_ids) - 1), self.shortest - 1, -1):
            start = _first_follower(token_ids, size)
            if start is not None:
                followers: list[int] = token_ids[start : start + count].tolist()
                return followers
        return []


def _first_follower(token_ids: np.ndarray, size: int) -> int | None:
    """Index after the first earlier occurrence of the last `size` tokens."""
    earlier = np.lib.stride_tricks.sliding_window_view(token_ids[:-1], size)
    matches = np.nonzero((earlier == token_ids[-size:]).all(axis=1))[0]
    return int(matches[0]) + size if len(matches) else None
