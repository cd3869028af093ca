# SPDX-License-Identifier: Apache-2.0
"""Random parameters that a layer takes by name and a reference reads by the same name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import torch
from mindspore import Tensor

from vllm_mindspore import bridge
from vllm_mindspore.quantization.plan import FloatPlan

FUSED = [(torch.float32, True), (torch.float16, True), (torch.bfloat16, True)]
# MindSpore's own primitives; their attention refuses fp32 caches.
CHAIN = [(torch.float16, False), (torch.bfloat16, False)]
KERNELS = [
    *((f"fused-{str(dtype)[6:]}", dtype, fused) for dtype, fused in FUSED),
    *((f"chain-{str(dtype)[6:]}", dtype, fused) for dtype, fused in CHAIN),
]
# A result is a sum of products that was rounded once, and so are the values it was made of.
ROUNDOFFS = 8


class RandomSource:
    """A ParameterSource of standard normal values, scaled to keep a layer's size."""

    num_bytes = 0

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.weights: dict[str, torch.Tensor] = {}
        self._generator = torch.Generator().manual_seed(1)

    def take(self, name: str, shape: Sequence[int]) -> Any:
        """Makes the weight on its first use."""
        return bridge.parameter(name, self.weight(name, shape))

    def take_bits(self, name: str, shape: Sequence[int]) -> Any:
        """The same weight as the fused kernels take it."""
        return bridge.bits_parameter(name, self.weight(name, shape))

    def take_merged(self, names: Sequence[str], shapes: Sequence[Sequence[int]]) -> Any:
        """The weights concatenated along their first axis."""
        parts = [self.weight(name, shape) for name, shape in zip(names, shapes, strict=True)]
        return bridge.parameter(names[0], torch.cat(parts))

    def stored(
        self, name: str, shapes: Sequence[Sequence[int]], dtypes: Sequence[torch.dtype]
    ) -> torch.Tensor:
        """Positive numbers of which an int8 cache may have scales and offsets."""
        if name not in self.weights:
            self.weights[name] = torch.rand(*shapes[0], generator=self._generator) / 40 + 0.01
        return self.weights[name]

    def finish(self) -> None:
        """Every name exists."""

    def weight(self, name: str, shape: Sequence[int]) -> torch.Tensor:
        if name not in self.weights:
            values = torch.randn(*shape, generator=self._generator) / shape[-1] ** 0.5
            self.weights[name] = values.to(self.dtype)
        return self.weights[name]

    def wide(self, name: str) -> torch.Tensor:
        """A weight in fp64, for a reference."""
        return self.weights[name].double()


class Int8Cached(FloatPlan):
    """Float layers around an int8 key/value cache."""

    int8_cache = True


def tensor(values: torch.Tensor) -> Tensor:
    """A MindSpore tensor of these values."""
    return bridge.from_torch(values)


def varying(values: torch.Tensor) -> Tensor:
    """Declares an input of any number of rows to a cell."""
    return Tensor(shape=[None, *values.shape[1:]], dtype=bridge.to_mindspore_dtype(values.dtype))


def check(found: Any, expected: torch.Tensor, dtype: torch.dtype, roundings: int = 1) -> None:
    """Shape, dtype and values; `roundings` is how often the way there rounds to `dtype`."""
    assert isinstance(found, ms.Tensor)
    result = bridge.to_torch(found)
    assert (result.dtype, result.shape) == (dtype, expected.shape)
    roundoff = torch.finfo(dtype).eps / 2
    error = float((result.double() - expected).abs().max())
    assert error <= ROUNDOFFS * roundings * roundoff * float(expected.abs().max())
