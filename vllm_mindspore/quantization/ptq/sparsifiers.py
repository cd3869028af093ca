# SPDX-License-Identifier: Apache-2.0
"""Makes weights [N, K] zero: by magnitude, by Wanda or by SparseGPT.

- Magnitude: the least |W_nk| of each row.
- Wanda (https://arxiv.org/abs/2306.11695): the least |W_nk| * ||X_k|| of each row.
- SparseGPT (https://arxiv.org/abs/2301.00774): column by column, with H = X^T X. A weight costs
  W_nk^2 / U_kk^2, where H^-1 = U^T U with U upper triangular; what its removal changes in the
  output is taken up by the columns behind, as far as they can. Each block of columns chooses its
  zeros among all rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vllm_mindspore.quantization.ptq.smoothing import Smoothing
from vllm_mindspore.quantization.ptq.sparsity import Method, Pattern, Sparsity
from vllm_mindspore.quantization.ptq.statistics import InputStatistics

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

BLOCK = 128
"""Columns that SparseGPT chooses zeros among at once; fewer where a pattern does not divide it."""
DAMPING = 0.01
"""What is added to the diagonal of H, of its mean: channels that were hardly seen get no weight."""


def sparsified(
    weight: Floats, sparsity: Sparsity, statistics: InputStatistics, smoothing: Smoothing
) -> Floats:
    """`weight`, which is smoothed, with zeros; the others are changed by SparseGPT alone."""
    if sparsity.method is Method.SPARSEGPT:
        return sparsegpt(weight, sparsity, smoothing.products(statistics))
    importance = np.abs(weight)
    if sparsity.method is Method.WANDA:
        importance = importance * np.sqrt(smoothing.squares(statistics))
    kept: Floats = np.where(least(importance, sparsity), np.float32(0), weight)
    return kept


def least(importance: npt.NDArray[np.floating], sparsity: Sparsity) -> Mask:
    """Where [N, K] the least of each row are, or of each block of the pattern."""
    if sparsity.pattern is not None:
        return _least_of_blocks(importance, sparsity.pattern)
    return _least_of_rows(importance, sparsity.zeros(importance.shape[-1]))


def sparsegpt(weight: Floats, sparsity: Sparsity, products: Doubles) -> Floats:
    """SparseGPT with H = `products` [K, K]."""
    w = weight.astype(np.float64)
    upper = _inverse_factor(products)
    rows, columns = w.shape
    pattern = sparsity.pattern
    block = BLOCK if pattern is None else max(1, BLOCK // pattern.block) * pattern.block
    for begin in range(0, columns, block):
        end = min(begin + block, columns)
        square = upper[begin:end, begin:end]
        errors = np.zeros((rows, end - begin))
        count = sparsity.zeros(rows * end) - sparsity.zeros(rows * begin)
        step = end - begin if pattern is None else pattern.block
        for first in range(begin, end, step):
            part = w[:, first : first + step]
            importance = (part / np.diag(upper)[first : first + step]) ** 2
            zero = (
                _least_of_all(importance, count)
                if pattern is None
                else _least_of_rows(importance, pattern.block - pattern.kept)
            )
            for column in range(first - begin, first - begin + part.shape[1]):
                now = w[:, begin + column]
                error = np.where(zero[:, begin + column - first], now, 0.0)
                error /= square[column, column]
                w[:, begin + column : end] -= np.outer(error, square[column, column:])
                errors[:, column] = error
            part[zero] = 0.0  # but for rounding they are
        w[:, end:] -= errors @ upper[begin:end, end:]
    return w.astype(np.float32)


def _inverse_factor(products: Doubles) -> Doubles:
    """Upper triangular U with (H + damping)^-1 = U^T U."""
    mean = float(np.mean(np.diag(products)))
    damped = products + np.eye(len(products)) * (DAMPING * mean if mean > 0 else 1.0)
    found: Doubles = np.linalg.cholesky(np.linalg.inv(damped)).T
    return found


def _least_of_rows(importance: npt.NDArray[np.floating], count: int) -> Mask:
    found = np.zeros(importance.shape, np.bool_)
    order = np.argsort(importance, axis=-1, kind="stable")[..., :count]
    np.put_along_axis(found, order, True, axis=-1)
    return found


def _least_of_blocks(importance: npt.NDArray[np.floating], pattern: Pattern) -> Mask:
    blocks = importance.reshape(len(importance), -1, pattern.block)
    return _least_of_rows(blocks, pattern.block - pattern.kept).reshape(importance.shape)


def _least_of_all(importance: npt.NDArray[np.floating], count: int) -> Mask:
    return _least_of_rows(importance.reshape(1, -1), count).reshape(importance.shape)
