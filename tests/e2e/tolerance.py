# SPDX-License-Identifier: Apache-2.0
"""How far two computations of the same logits may lie apart.

A logit is hidden . head row. Each layer rounds about ten intermediate vectors to the dtype (norms,
projections, attention, activation, residual sums), errors that add up like a random walk: after L
layers the hidden state is off by u * sqrt(10 L + 1) of its norm, in a random direction, so a logit
is off by that times |hidden| * |row| / sqrt(hidden size), with a normal distribution. u is half the
dtype's epsilon, plus what sums of `hidden size` products in float32 lose. Tolerances are SIGMAS
standard deviations: over the 10^5 values compared here, 5 are exceeded once by chance.
"""

from __future__ import annotations

import torch

ROUNDINGS_PER_LAYER = 10
SIGMAS = 6


def logit_tolerance(
    dtype: torch.dtype, num_layers: int, hidden_size: int, logit_scale: float
) -> float:
    """Largest expected error of one logit computed in `dtype`; `logit_scale` is the largest
    |hidden| * |head row|."""
    roundoff = torch.finfo(dtype).eps / 2
    roundoff += float(hidden_size) ** 0.5 * torch.finfo(torch.float32).eps / 2
    walk = float(ROUNDINGS_PER_LAYER * num_layers + 1) ** 0.5
    return float(SIGMAS * roundoff * walk * logit_scale / float(hidden_size) ** 0.5)
