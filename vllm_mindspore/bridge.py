# SPDX-License-Identifier: Apache-2.0
"""The one place where torch, numpy and MindSpore tensors meet.

Everything here shares memory unless its docstring says that it copies.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
import torch
from mindspore import Parameter, Tensor
from mindspore.utils import dlpack

_MINDSPORE_DTYPES: dict[torch.dtype, ms.Type] = {
    torch.bfloat16: ms.bfloat16,
    torch.float16: ms.float16,
    torch.float32: ms.float32,
    torch.int8: ms.int8,
    torch.int32: ms.int32,
    torch.int64: ms.int64,
}


def to_mindspore_dtype(dtype: torch.dtype) -> ms.Type:
    """The MindSpore dtype with the same bits; ValueError for one that has none here."""
    if dtype not in _MINDSPORE_DTYPES:
        supported = ", ".join(str(d) for d in _MINDSPORE_DTYPES)
        raise ValueError(f"dtype {dtype} has no MindSpore counterpart; supported: {supported}")
    return _MINDSPORE_DTYPES[dtype]


def from_torch(tensor: torch.Tensor) -> Tensor:
    """A MindSpore tensor over the same memory; keeps the torch storage alive."""
    return dlpack.from_dlpack(tensor.contiguous().__dlpack__())


def bits_dtype(dtype: torch.dtype) -> ms.Type:
    """What our own kernels take for `dtype`: int16 for bfloat16, else the same."""
    return ms.int16 if dtype == torch.bfloat16 else to_mindspore_dtype(dtype)


def bits_from_torch(tensor: torch.Tensor) -> Tensor:
    """A MindSpore tensor over the memory of a contiguous torch tensor, for our own kernels, which
    take bfloat16 as int16 of the same bits. Unlike `from_torch` it does not read the memory."""
    return Tensor.from_numpy(_bits(tensor).numpy())


def to_torch(tensor: Tensor) -> torch.Tensor:
    """A torch tensor over the same memory; waits until the tensor is computed."""
    shared: torch.Tensor = torch.utils.dlpack.from_dlpack(dlpack.to_dlpack(tensor))
    return shared


def copied_to_torch(tensor: Tensor) -> torch.Tensor:
    """A copy on the host of a tensor on any device; waits until it is computed."""
    if tensor.dtype == ms.bfloat16:  # numpy has no such type
        return torch.from_numpy(tensor.view(ms.int16).asnumpy().copy()).view(torch.bfloat16)
    return torch.from_numpy(tensor.asnumpy().copy())


def zeros_like(tensor: torch.Tensor) -> Tensor:
    """Zeros of the same shape and dtype, in memory that MindSpore has on its device."""
    zeros: Tensor = ms.mint.zeros(tuple(tensor.shape), dtype=to_mindspore_dtype(tensor.dtype))
    return zeros


def from_numpy(array: np.ndarray) -> Tensor:
    """A MindSpore tensor over the same memory. A graph call may read it until its output is
    used, so the caller hands over arrays that nobody writes to in between."""
    return Tensor.from_numpy(array)


def to_host_torch(array: np.ndarray) -> torch.Tensor:
    """A torch tensor over the same memory."""
    return torch.from_numpy(array)


def rounded(values: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """float32 values, rounded to `dtype`."""
    found: np.ndarray = torch.from_numpy(values.copy()).to(dtype).float().numpy()
    return found


def constant(name: str, values: np.ndarray, dtype: torch.dtype | None = None) -> Parameter:
    """A frozen, named Parameter of a numpy array: a copy in `dtype`, or its own memory."""
    return parameter(name, torch.from_numpy(values).to(dtype))


def parameter(name: str, tensor: torch.Tensor) -> Parameter:
    """A frozen, named Parameter over the memory of a contiguous torch tensor.

    Graphs read that very memory, except bfloat16: numpy has no such type, and what comes by
    DLPack or as a view is moved into memory of MindSpore's own in the first call of a graph.
    `to_torch` of the parameter gives the memory in use.
    """
    # Parameter() copies unless its argument is a temporary passed by position.
    frozen = Parameter(_from_torch_by_numpy(tensor))
    frozen.name = name
    frozen.requires_grad = False
    return frozen


def bits_parameter(name: str, tensor: torch.Tensor) -> Parameter:
    """The same for our own kernels, which take bfloat16 as int16 of the same bits: never moved."""
    return parameter(name, _bits(tensor))


def typed(parameter: Parameter, dtype: torch.dtype) -> Parameter:
    """A `bits_parameter` of `dtype` for MindSpore's kernels, which know bfloat16."""
    if dtype != torch.bfloat16:
        return parameter
    found = Parameter(Tensor.from_numpy(parameter.asnumpy()).view(ms.bfloat16))
    found.name = parameter.name
    found.requires_grad = False
    return found


def int4_constant(name: str, packed: np.ndarray) -> Parameter:
    """A frozen Parameter of int4, copied from int8 bytes of two neighbours each, the first in the
    low half. MindSpore counts its bytes, not its elements, in the shape."""
    frozen = Parameter(Tensor(packed, dtype=ms.qint4x2))
    frozen.name = name
    frozen.requires_grad = False
    return frozen


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor


def _from_torch_by_numpy(tensor: torch.Tensor) -> Tensor:
    if tensor.dtype == torch.bfloat16:
        return Tensor.from_numpy(tensor.view(torch.int16).numpy()).view(ms.bfloat16)
    return Tensor.from_numpy(tensor.numpy())
