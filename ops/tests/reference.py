# SPDX-License-Identifier: Apache-2.0
"""float64 numpy definitions of the operations: written for clarity, independent of the library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


def silu(x: npt.ArrayLike) -> Floats:
    """x / (1 + exp(-x))."""
    wide = np.asarray(x, np.float64)
    return wide / (1 + np.exp(-wide))


def rms_norm(x: Floats, gamma: Floats, epsilon: float) -> tuple[Floats, Floats]:
    """Normalised rows and the reciprocal root mean squares."""
    scale = 1 / np.sqrt((x * x).mean(-1) + epsilon)
    return x * scale[..., None] * gamma, scale


def angles(
    positions: npt.NDArray[np.int64], dim: int, *, interleaved: bool
) -> tuple[Floats, Floats]:
    """cos and sin rows [T, dim], each frequency twice: adjacent (interleaved) or in both halves."""
    frequency = 10000.0 ** (-np.arange(0, dim, 2) / dim)
    phase = positions[:, None] * frequency
    full = np.repeat(phase, 2, axis=1) if interleaved else np.concatenate([phase, phase], 1)
    return np.cos(full), np.sin(full)


def rotary(x: Floats, cos: Floats, sin: Floats, head_dim: int, interleaved: bool) -> Floats:
    """x [T, H * head_dim] with the first cos.shape[1] elements of every head rotated."""
    heads = x.reshape(x.shape[0], -1, head_dim).copy()
    part = heads[..., : cos.shape[1]]
    turned = np.empty_like(part)
    if interleaved:
        turned[..., 0::2], turned[..., 1::2] = -part[..., 1::2], part[..., 0::2]
    else:
        half = cos.shape[1] // 2
        turned[..., :half], turned[..., half:] = -part[..., half:], part[..., :half]
    heads[..., : cos.shape[1]] = part * cos[:, None] + turned * sin[:, None]
    return heads.reshape(x.shape)


@dataclass(frozen=True)
class PagedCase:
    """A batch of sequences over a paged cache, in float64 and int32."""

    query: Floats  # [T, H * D]
    new_keys: Floats  # [T, KH * D], those of this step
    new_values: Floats
    keys: Floats  # [NB, BS, KH, D]
    values: Floats
    slots: Ints  # [T]
    tables: Ints  # [B, MAXB]
    contexts: Ints  # [B]
    queries: Ints  # [B]


def paged_case(
    rng: np.random.Generator,
    contexts: Sequence[int],
    queries: Sequence[int],
    *,
    heads: int,
    kv_heads: int,
    dim: int,
    block: int,
) -> PagedCase:
    """Random tensors and shuffled blocks for sequences of the given lengths."""
    batch, tokens = len(contexts), sum(queries)
    columns = max(-(-max(contexts) // block), 1)
    tables = rng.permutation(batch * columns + 3)[: batch * columns].reshape(batch, columns)
    slots = [
        tables[b, position // block] * block + position % block
        for b in range(batch)
        for position in range(contexts[b] - queries[b], contexts[b])
    ]
    shape = (batch * columns + 3, block, kv_heads, dim)
    return PagedCase(
        rng.standard_normal((tokens, heads * dim)),
        rng.standard_normal((tokens, kv_heads * dim)),
        rng.standard_normal((tokens, kv_heads * dim)),
        rng.standard_normal(shape),
        rng.standard_normal(shape),
        np.array(slots, np.int32),
        tables.astype(np.int32),
        np.array(contexts, np.int32),
        np.array(queries, np.int32),
    )


def paged_attention(
    query: Floats, keys: Floats, values: Floats, case: PagedCase, heads: int, scale: float
) -> Floats:
    """Causal attention of every query token over the visible part of its sequence."""
    kv_heads, dim = keys.shape[2], keys.shape[3]
    out = np.zeros((query.shape[0], heads, dim))
    split = query.reshape(query.shape[0], heads, dim)
    row = 0
    for table, context, count in zip(case.tables, case.contexts, case.queries, strict=True):
        k = keys[table].reshape(-1, kv_heads, dim)[:context].repeat(heads // kv_heads, 1)
        v = values[table].reshape(-1, kv_heads, dim)[:context].repeat(heads // kv_heads, 1)
        for i in range(count):
            visible = context - count + i + 1
            scores = np.einsum("hd,khd->hk", split[row], k[:visible]) * scale
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            out[row] = np.einsum("hk,khd->hd", weights, v[:visible])
            row += 1
    return out.reshape(query.shape)
