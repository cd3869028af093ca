# SPDX-License-Identifier: Apache-2.0
"""The shape of one attention layer. Imports no MindSpore, so the front end may read it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AttentionConfig:
    """The shape of one attention layer."""

    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rotary_dim: int
    """Leading elements of each head that are rotated."""
    norm_epsilon: float
    qk_norm: bool
    """Whether query and key heads are normalised before they are rotated (Qwen3)."""
    bias: bool
    """Whether the query, key and value projections have biases."""
    output_bias: bool = False
    """Whether the output projection has a bias."""
    interleaved: bool = False
    """Whether neighbouring elements are rotated together (GLM), not the two halves of a head."""

    @property
    def query_size(self) -> int:
        """Width of all query heads."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all key (or value) heads."""
        return self.num_kv_heads * self.head_dim

    @property
    def scale(self) -> float:
        """The factor on query . key."""
        return float(self.head_dim**-0.5)
