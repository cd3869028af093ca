# SPDX-License-Identifier: Apache-2.0
"""How far two computations of the same logits may lie apart.

A logit is hidden . head row. Each layer rounds about ten intermediate vectors to the dtype (norms,
projections, attention, activation, residual sums). A rounding is off by up to u, half the dtype's
epsilon, and evenly so: u / sqrt(3) in the mean; what sums of `hidden size` products in float32
lose comes on top. These errors add up like a random walk: after L layers the hidden state is off
by u / sqrt(3) * sqrt(10 L + 1) of its norm, in a random direction, and hidden . row by that times
|hidden| * |row| / sqrt(hidden size). Errors of logits are measured in these units here.

Three limits follow, for the log probabilities of a whole vocabulary at every position:

- A position's root mean square error. Attention that wavers between two keys multiplies what was
  rounded before it, so positions differ: ROW_SPREAD.
- A single error: SINGLE_SPREAD times that of its position, as 10^5 normally distributed values.
- The root mean square over all positions, where chance is small and a mistake is not: NOISE_RATIO
  times what transformers itself loses in that dtype. It rounds 17 vectors per layer; so ours should
  be sqrt(10 / 17) = 0.8 of it in fused nodes (found: 0.78 to 0.92) and 1 in the chain.

A 2 % error of the attention scale brings the last to 1.6 in bf16, and to 5 in fp16.
"""

from __future__ import annotations

import torch

ROUNDINGS_PER_LAYER = 10
ROW_SPREAD = 3.5
SINGLE_SPREAD = 5.0
NOISE_RATIO = 1.2
# Two logits whose difference exceeds this many units do not change places.
CHOICE_SPREAD = 6.0


def relative_error(dtype: torch.dtype, num_layers: int, hidden_size: int) -> float:
    """By how much of its norm the last hidden state is off, in the mean."""
    roundoff = torch.finfo(dtype).eps / 2
    roundoff += float(hidden_size) ** 0.5 * torch.finfo(torch.float32).eps / 2
    return float(roundoff * ((ROUNDINGS_PER_LAYER * num_layers + 1) / 3) ** 0.5)


def errors(found: torch.Tensor, expected: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
    """Errors of logits [T, vocab] in units [T, vocab], from log probabilities: what all tokens of
    a position have in common is their normalisation, which `found` must have of its own."""
    difference = found - expected
    return (difference - difference.mean(-1, keepdim=True)) / units


def rms(values: torch.Tensor, dim: int | None = None) -> torch.Tensor:
    """Root mean square over a dimension, or over all values."""
    return values.square().mean(dim).sqrt()
