# SPDX-License-Identifier: Apache-2.0
"""Puts the factors of a group's input where they cost nothing: W * s, and 1 / s into what computes
the input (the weight of a norm, or rows of the linear layer before)."""

from __future__ import annotations

from collections.abc import MutableMapping

import numpy as np
import numpy.typing as npt
import torch

from vllm_mindspore.quantization.ptq.linears import rounded
from vllm_mindspore.quantization.ptq.smoothing import Smoothing, row_factors
from vllm_mindspore.quantization.ptq.structure import Group, Rows

Floats = npt.NDArray[np.float32]
Arrays = MutableMapping[str, Floats]


def fold(arrays: Arrays, group: Group, smoothing: Smoothing, dtype: torch.dtype) -> Smoothing:
    """Changes the weights of a layer in place and returns the factors that were used.

    A norm's weight is stored in `dtype`: its factors are those that are left after rounding, so
    that the products with W stay what they were.
    """
    scale = smoothing.scale
    if group.norm is not None:
        scale = _fold_into_norm(arrays[group.norm], scale, dtype)
    elif group.rows is not None:
        _fold_into_rows(arrays, group.rows, scale)
    else:
        raise ValueError(f"nothing before {group.names[0]} can take up factors of its input")
    for name in group.names:
        arrays[f"{name}.weight"] *= scale
    return Smoothing(scale, smoothing.shift)


def _fold_into_norm(norm: Floats, scale: Floats, dtype: torch.dtype) -> Floats:
    before = norm.copy()
    norm[:] = rounded(before / scale, dtype)
    kept = norm != 0
    used: Floats = np.divide(before, norm, out=scale.copy(), where=kept)
    return used


def _fold_into_rows(arrays: Arrays, rows: Rows, scale: Floats) -> None:
    factors = row_factors(scale, rows)
    part = slice(rows.start, rows.start + rows.count)
    arrays[f"{rows.name}.weight"][part] /= factors[:, None]
    bias = f"{rows.name}.bias"
    if bias in arrays:
        arrays[bias][part] /= factors
