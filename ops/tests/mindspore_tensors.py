# SPDX-License-Identifier: Apache-2.0
"""MindSpore tensors from numpy values and back, bfloat16 included; cells with unknown axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ops.tests.native import from_bfloat16, to_bfloat16

Array = npt.NDArray[np.generic]
FLOATS = ("float32", "float16", "bfloat16")


def to_ms(values: npt.ArrayLike, dtype: str) -> Any:
    """A MindSpore tensor with the values rounded to dtype."""
    import mindspore as ms

    if dtype == "bfloat16":
        return ms.Tensor.from_numpy(to_bfloat16(np.asarray(values, np.float32))).view(ms.bfloat16)
    return ms.Tensor(np.array(values, dtype=dtype))


def to_np(tensor: Any) -> Array:
    """The values of a MindSpore tensor."""
    import mindspore as ms

    if tensor.dtype == ms.bfloat16:
        return from_bfloat16(tensor.contiguous().view(ms.uint16).asnumpy())
    return tensor.asnumpy()


def rounded(values: npt.ArrayLike, dtype: str) -> npt.NDArray[np.float64]:
    """The values as float64 after rounding to dtype."""
    if dtype == "bfloat16":
        return from_bfloat16(to_bfloat16(np.asarray(values, np.float32))).astype(np.float64)
    return np.asarray(values).astype(dtype).astype(np.float64)


def graph(function: Callable[..., Any], inputs: Sequence[Any]) -> Callable[..., Any]:
    """A graph-mode cell around the function, compiled for inputs whose first axes are unknown
    (of integer tensors, such as block tables: all axes)."""
    import mindspore as ms
    from mindspore import nn

    class Cell(nn.Cell):
        def construct(self, *args: Any) -> Any:
            return function(*args)

    ms.set_context(mode=ms.GRAPH_MODE, jit_level="O0")
    cell = Cell()
    integers = (ms.int32, ms.int64)
    shapes = [[None] * x.ndim if x.dtype in integers else [None, *x.shape[1:]] for x in inputs]
    cell.set_inputs(
        *[ms.Tensor(shape=s, dtype=x.dtype) for s, x in zip(shapes, inputs, strict=True)]
    )
    return cell


def run(function: Callable[..., Any], inputs: Sequence[Any], dynamic: bool) -> Any:
    """Calls function(*inputs) in PyNative, or in a graph whose first axes are unknown."""
    import mindspore as ms

    if dynamic:
        return graph(function, inputs)(*inputs)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    return function(*inputs)
