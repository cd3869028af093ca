# SPDX-License-Identifier: Apache-2.0
"""No read or write outside a buffer: every buffer ends right before a page without access."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import numpy.typing as npt
import pytest

from ops.tests import reference
from ops.tests.native import DENSE, Native, Tensor, empty, tensor
from ops.tests.sparse_weights import readers, sparse
from ops.tests.test_int8_cache import case_of

PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Guards:
    """Allocates arrays between two inaccessible pages; unmaps them at the end."""

    def __init__(self) -> None:
        self._maps: list[tuple[int, int]] = []

    def place(self, source: Tensor, *, at_end: bool = True) -> Tensor:
        """A copy that touches the page behind (at_end) or before it."""
        size = source.array.nbytes
        length = (size + PAGE - 1) // PAGE * PAGE + 2 * PAGE
        protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        base = _libc.mmap(None, length, protection, flags, -1, 0)
        self._maps.append((base, length))
        assert _libc.mprotect(base, PAGE, 0) == 0
        assert _libc.mprotect(base + length - PAGE, PAGE, 0) == 0
        address = base + length - PAGE - size if at_end else base + PAGE
        raw = (ctypes.c_uint8 * size).from_address(address)
        array = np.frombuffer(raw, source.array.dtype).reshape(source.array.shape)
        array[...] = source.array
        return Tensor(array, source.dtype)

    def close(self) -> None:
        for base, length in self._maps:
            _libc.munmap(base, length)


@pytest.fixture
def guards():  # noqa: ANN201
    pages = Guards()
    yield pages
    pages.close()


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("at_end", [True, False])
def test_matmul(
    isa: Native, guards: Guards, dtype: str, at_end: bool, rng: np.random.Generator
) -> None:
    sizes = ((1, 3, 37), (5, 6, 1), (3, 5, 64), (7, 1, 65), (20, 17, 33), (23, 17, 31), (49, 9, 66))
    for rows, cols, inner in sizes:
        x = guards.place(tensor(rng.standard_normal((rows, inner)), dtype), at_end=at_end)
        w = guards.place(tensor(rng.standard_normal((cols, inner)), dtype), at_end=at_end)
        bias = guards.place(tensor(rng.standard_normal(cols), dtype), at_end=at_end)
        y = guards.place(empty((rows, cols), dtype), at_end=at_end)
        isa.call("linear", x, 1, [w], [bias], y)
        isa.call("gate_up_swiglu", x, w, w, y)


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("at_end", [True, False])
def test_int8(
    isa: Native, guards: Guards, dtype: str, at_end: bool, rng: np.random.Generator
) -> None:
    def place(values: npt.NDArray[np.floating], kind: str) -> Tensor:
        return guards.place(tensor(values, kind), at_end=at_end)

    for rows, cols, inner in ((1, 3, 37), (5, 6, 1), (3, 5, 64), (9, 7, 65), (20, 17, 130)):
        x, bias = (place(rng.standard_normal(s), dtype) for s in ((rows, inner), cols))
        inners = [place(np.ones(inner), "float32") for _ in range(2)]
        codes, w = (place(np.ones((n, inner)), "int8") for n in (rows, cols))
        token_scale, scale = (place(np.ones(n), "float32") for n in (rows, cols))
        quant_bias, y = place(np.ones(cols), "int32"), place(np.ones((rows, cols)), dtype)
        isa.call("quantize", x, 0, *inners, codes, None)
        isa.call("quantize", x, 2, inners[0], None, codes, token_scale)
        isa.call("int8_linear", codes, token_scale, 1, [w, scale, quant_bias, bias], y)


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("noise", [False, True])
def test_sparse(
    isa: Native, guards: Guards, at_end: bool, noise: bool, rng: np.random.Generator
) -> None:
    """Streams of noise, too: nobody has validated them."""
    sizes = ((1, 3, 37), (2, 17, 257), (5, 130, 64), (9, 7, 65), (20, 129, 300), (1, 128, 256))
    for rows, cols, inner in sizes:
        weight = sparse(rng, cols, inner, 0.5)
        if noise:
            stream = weight.stream.array
            stream[...] = np.where(rng.random(stream.size) < 0.7, -1, rng.integers(-9, 9))
        given = [guards.place(part, at_end=at_end) for part in weight.compressed() if part]
        x = rng.integers(-128, 128, (rows, inner), np.int8)
        codes = guards.place(Tensor(x, "int8"), at_end=at_end)
        y = guards.place(empty((rows, cols), "float32"), at_end=at_end)
        for _ in readers(isa):
            isa.call("sparse_linear", codes, None, 1, given, y)


@pytest.mark.parametrize("dtype", DENSE[1:])
@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("bits", [8, 4])
def test_weight_only(
    isa: Native, guards: Guards, dtype: str, at_end: bool, bits: int, rng: np.random.Generator
) -> None:
    def place(values: npt.NDArray[np.floating], kind: str) -> Tensor:
        return guards.place(tensor(values, kind), at_end=at_end)

    for rows, cols, inner in ((1, 3, 37), (5, 6, 1), (3, 5, 64), (9, 7, 65), (6, 17, 128)):
        group = 64 if inner == 128 else 0
        width = inner if bits == 8 else -(-inner // 64) * 32
        shape = (cols, inner // group) if group else (cols,)
        x, bias = (place(rng.standard_normal(s), dtype) for s in ((rows, inner), cols))
        w, y = place(np.ones((cols, width)), "int8"), place(np.ones((rows, cols)), dtype)
        scale, offset = (place(np.ones(shape), "float32") for _ in range(2))
        isa.call("weight_only_linear", x, bits, group, 1, [w, scale, offset, bias], y)
        isa.call("weight_only_linear", x, bits, group, 1, [w, scale, None, None], y)


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("at_end", [True, False])
def test_rowwise(
    isa: Native, guards: Guards, dtype: str, at_end: bool, rng: np.random.Generator
) -> None:
    for cols in (2, 6, 14, 34, 66):
        x, y, total = (
            guards.place(tensor(rng.standard_normal((3, cols)), dtype), at_end=at_end)
            for _ in range(3)
        )
        gamma = guards.place(tensor(rng.standard_normal(cols), dtype), at_end=at_end)
        half = guards.place(empty((3, cols // 2), dtype), at_end=at_end)
        cos = guards.place(tensor(rng.standard_normal((3, cols)), "float32"), at_end=at_end)
        isa.call("rms_norm", x, gamma, 1e-6, y, None)
        isa.call("add_rms_norm", x, y, gamma, 1e-6, y, None, total)
        isa.call("swiglu", x, -1, half)
        isa.call("silu", x, y)
        for interleaved in (False, True):
            isa.call("rotary", x, cos, cos, cols, interleaved, y)


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("at_end", [True, False])
def test_attention(
    isa: Native, guards: Guards, dtype: str, at_end: bool, rng: np.random.Generator
) -> None:
    for dim in (3, 8, 20, 33, 64):
        case = reference.paged_case(rng, [33, 66], [9, 1], heads=4, kv_heads=2, dim=dim, block=16)
        # The last block of the caches is in use, up to its last slot.
        case.tables[0, 1] = case.keys.shape[0] - 1
        case.tables[1, 0] = 0
        query, keys, values = (
            guards.place(tensor(v, dtype), at_end=at_end)
            for v in (case.query, case.keys, case.values)
        )
        tables, contexts, queries = (
            guards.place(Tensor(v, "int32"), at_end=at_end)
            for v in (case.tables, case.contexts, case.queries)
        )
        out = guards.place(empty(case.query.shape, dtype), at_end=at_end)
        isa.call("paged_attention", query, keys, values, tables, contexts, queries, 4, 2, 0.3, out)


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("at_end", [True, False])
def test_int8_cache(
    isa: Native, guards: Guards, dtype: str, at_end: bool, rng: np.random.Generator
) -> None:
    for dim in (3, 8, 20, 33, 70):
        case = case_of(rng, [33, 66], [9, 1], heads=4, kv_heads=2, dim=dim, block=16)
        # The last block of the caches is in use, up to its last slot, and the first.
        case.paged.tables[0, 1] = len(case.keys.array) - 1
        case.paged.tables[1, 0] = 0
        case.paged.slots[-2:] = case.keys.array.shape[0] * 16 - 1, 0
        tensors = [*case.inputs(dtype), empty(case.paged.query.shape, dtype)]
        placed = [guards.place(t, at_end=at_end) if t.array.size else t for t in tensors]
        isa.call("attention_block", placed, 14)
