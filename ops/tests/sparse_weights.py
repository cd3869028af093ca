# SPDX-License-Identifier: Apache-2.0
"""Compressed weights for tests, and the product that kernels must equal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ops.tests.native import Native, Tensor, empty, tensor
from vllm_mindspore.device import sparse_weights

Codes = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Sparse:
    """A weight [N, K], plain and compressed, and what turns its sums into values."""

    weight: Codes
    stream: Tensor
    index: Tensor
    scale: Tensor
    quant_bias: Tensor
    bias: Tensor

    def plain(self) -> list[Tensor | None]:
        """As int8_linear takes it."""
        return [Tensor(self.weight, "int8"), self.scale, self.quant_bias, self.bias]

    def compressed(self) -> list[Tensor | None]:
        """As sparse_linear takes it."""
        return [self.stream, self.scale, self.quant_bias, self.bias, self.index]


def sparse_codes(rng: np.random.Generator, outputs: int, inputs: int, zeros: float) -> Codes:
    """Any code, the extremes often; some whole tiles are zero and some have no zero."""
    weight = rng.integers(-128, 128, (outputs, inputs), np.int8)
    weight[rng.random(weight.shape) < 0.2] = -128
    weight[rng.random(weight.shape) < zeros] = 0
    for n in range(0, outputs, 128):
        for k in range(0, inputs, 256):
            kind = rng.integers(0, 6)
            tile = weight[n : n + 128, k : k + 256]
            if kind == 0:
                tile[...] = 0
            elif kind == 1:
                tile[tile == 0] = 127
    return weight


def sparse(
    rng: np.random.Generator, outputs: int, inputs: int, zeros: float, dtype: str = "float32"
) -> Sparse:
    """A weight with scales and biases."""
    weight = sparse_codes(rng, outputs, inputs, zeros)
    stream, index = sparse_weights.encode(weight)
    return Sparse(
        weight,
        Tensor(stream, "int8"),
        Tensor(index, "int8"),
        tensor(rng.uniform(1e-5, 1e-3, outputs), "float32"),
        Tensor(rng.integers(-(2**20), 2**20, outputs, np.int32), "int32"),
        tensor(rng.standard_normal(outputs), dtype),
    )


def products(library: Native, x: Codes, weights: list[Sparse], dtype: str) -> tuple[Tensor, Tensor]:
    """The dense product and that of the compressed weights."""
    found = []
    for name in ("int8_linear", "sparse_linear"):
        y = empty((len(x), sum(len(w.weight) for w in weights)), dtype)
        lists = [w.plain() if name == "int8_linear" else w.compressed() for w in weights]
        flat = [part for each in lists for part in each]
        library.call(name, Tensor(x, "int8"), None, len(weights), flat, y)
        found.append(y)
    return found[0], found[1]


def readers(library: Native) -> Iterator[None]:
    """With AVX-512 VBMI2 if the machine has it, and without."""
    for vbmi2 in (1, 0):
        library.functions.vmo_set_vbmi2(vbmi2)
        try:
            yield
        finally:
            library.functions.vmo_set_vbmi2(1)
