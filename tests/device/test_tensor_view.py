# SPDX-License-Identifier: Apache-2.0
"""numpy arrays through ctypes."""

from __future__ import annotations

import numpy as np
import pytest

from vllm_mindspore.device.tensor_view import view_of


def test_strides_count_elements() -> None:
    array = np.zeros((3, 8), np.float16)[:, ::2]
    view = view_of(array)
    assert (view.data, view.ndim) == (array.ctypes.data, 2)
    assert list(view.shape[:2]) == [3, 4]
    assert list(view.strides[:2]) == [8, 2]


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(TypeError, match=r"expected one of float32, .*; found float64"):
        view_of(np.zeros(1))
