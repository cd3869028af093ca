# SPDX-License-Identifier: Apache-2.0
"""int8 key/value caches: the codes that are written, attention over what they stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest

from ops.tests import reference
from ops.tests.native import (
    DENSE,
    UNIT_ROUNDOFF,
    Native,
    NativeError,
    Tensor,
    empty,
    misaligned,
    tensor,
)
from ops.tests.reference import PagedCase
from ops.tests.test_attention import FLOAT_STEPS, ints, sub_case
from ops.tests.test_sublayers import (
    DIM,
    EPSILON,
    HEADS,
    HIDDEN,
    INNER,
    KV_HEADS,
    TOKENS,
    Attention,
    add_norm,
    attention,
    copies,
)
from vllm_mindspore.quantization import primitives

CACHE_SCALES = 4  # OptionalTensor of core/attention_attributes.h


@dataclass
class Case:
    """A batch whose caches hold codes. `scales` float32 [4, KH * D]: key scale, key offset, value
    scale, value offset."""

    paged: PagedCase
    keys: Tensor
    values: Tensor
    scales: Tensor
    heads: int

    def inputs(self, dtype: str, *, norms: bool = False) -> list[Tensor]:
        """Those of attention_block, without rotation."""
        paged, kv_heads, dim = self.paged, *self.keys.array.shape[2:]
        tokens = len(paged.query)
        qkv = np.concatenate([paged.query, paged.new_keys, paged.new_values], 1)
        angles = tensor(np.ones((tokens, 0)), "float32")
        tables = [ints(v) for v in (paged.slots, paged.tables, paged.contexts, paged.queries)]
        flags = [self.heads, kv_heads, dim, 0, 0, int(norms), 0, CACHE_SCALES]
        return [
            *(tensor(qkv, dtype), tensor(np.ones(dim), dtype), tensor(np.ones(dim), dtype)),
            *(angles, angles, *tables, self.keys, self.values),
            *(ints(np.array(flags, np.int32)), tensor([dim**-0.5, 1e-6], "float32"), self.scales),
        ]

    def written(self, dtype: str) -> tuple[np.ndarray, np.ndarray]:
        """The codes in both caches after the step."""
        found = []
        rows = (self.paged.new_keys, self.paged.new_values)
        for cache, new, first in zip((self.keys, self.values), rows, (0, 2), strict=True):
            codes = cache.array.copy()
            kept = self.paged.slots >= 0
            values = tensor(new, dtype).wide().astype(np.float32)
            new_codes = primitives.quantize(values, *self.scales.array[first : first + 2])
            flat = codes.reshape(-1, codes.shape[2] * codes.shape[3])
            flat[self.paged.slots[kept]] = new_codes[kept]
            found.append(codes)
        return found[0], found[1]

    def expected(self, dtype: str, codes: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Attention in float64 over what the codes stand for."""
        kv_heads, dim = self.keys.array.shape[2:]
        wide = self.scales.wide().reshape(4, kv_heads, dim)
        keys, values = ((codes[i] - wide[2 * i + 1]) * wide[2 * i] for i in range(2))
        query = tensor(self.paged.query, dtype).wide()
        return reference.paged_attention(query, keys, values, self.paged, self.heads, dim**-0.5)


def case_of(
    rng: np.random.Generator,
    contexts: list[int],
    queries: list[int],
    *,
    heads: int,
    kv_heads: int,
    dim: int,
    block: int,
) -> Case:
    """Random codes, scales and whole offsets; some of the new rows lie beyond the codes."""
    paged = reference.paged_case(
        rng, contexts, queries, heads=heads, kv_heads=kv_heads, dim=dim, block=block
    )
    caches = [Tensor(rng.integers(-128, 128, paged.keys.shape, np.int8), "int8") for _ in range(2)]
    scales = rng.uniform(0.01, 0.04, (4, kv_heads * dim))
    scales[1::2] = rng.integers(-60, 61, (2, kv_heads * dim))
    return Case(paged, *caches, tensor(scales, "float32"), heads)


def attend(library: Native, case: Case, dtype: str) -> Tensor:
    """attention_block; the case's caches are written."""
    out = empty(case.paged.query.shape, dtype)
    library.call("attention_block", [*case.inputs(dtype), out], 14)
    return out


def check(library: Native, case: Case, dtype: str) -> None:
    codes = case.written(dtype)
    exact = case.expected(dtype, codes)
    out = attend(library, case, dtype)
    np.testing.assert_array_equal(case.keys.array, codes[0])
    np.testing.assert_array_equal(case.values.array, codes[1])
    value_scale, value_offset = case.scales.array[2:]
    largest = (value_scale * (128 + np.abs(value_offset))).max()  # that sums of codes stand for
    absolute = FLOAT_STEPS * UNIT_ROUNDOFF["float32"] * largest
    assert (np.abs(out.wide() - exact) <= UNIT_ROUNDOFF[dtype] * np.abs(exact) + absolute).all()


@pytest.mark.parametrize("dtype", DENSE)
def test_every_head_width(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    for dim in (*range(1, 40), 64, 72, 80, 96, 128, 192, 256):
        case = case_of(rng, [9, 70], [2, 1], heads=2, kv_heads=1, dim=dim, block=16)
        check(isa, case, dtype)


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("block", [16, 17, 32, 64, 128])
def test_block_sizes_and_mixed_batches(
    isa: Native, dtype: str, block: int, rng: np.random.Generator
) -> None:
    """Prefill, chunked prefill and decode in one call; contexts around the key block of 64."""
    contexts, queries = [1, 63, 64, 65, 129, 200, 0], [1, 63, 1, 5, 2, 40, 0]
    case = case_of(rng, contexts, queries, heads=6, kv_heads=2, dim=24, block=block)
    case.paged.slots[[0, 70]] = -1  # tokens that must not be written
    check(isa, case, dtype)


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 4), (8, 1), (10, 2), (80, 2)])
def test_head_groups(isa: Native, heads: int, kv_heads: int, rng: np.random.Generator) -> None:
    case = case_of(rng, [40, 90], [40, 3], heads=heads, kv_heads=kv_heads, dim=16, block=16)
    check(isa, case, "float32")


def test_a_key_offset_is_not_seen(isa: Native, rng: np.random.Generator) -> None:
    """It moves all scores of a query alike, so codes that are moved with it change nothing."""
    case = case_of(rng, [70], [1], heads=4, kv_heads=2, dim=20, block=16)
    case.keys.array[...] //= 4
    case.scales.array[1] = 0
    case.paged.slots[...] = -1
    plain = attend(isa, case, "float32").array.copy()
    case.keys.array[...] += 50
    case.scales.array[1] = 50
    np.testing.assert_allclose(attend(isa, case, "float32").array, plain, rtol=1e-4, atol=1e-5)


def test_numbers_without_code(isa: Native, rng: np.random.Generator) -> None:
    """NaN becomes 0, infinity the last code: as in the primitives."""
    case = case_of(rng, [5], [5], heads=2, kv_heads=2, dim=20, block=16)
    case.paged.new_keys[1, :3] = np.nan, np.inf, -np.inf
    case.paged.new_values[2, 17:20] = np.inf, np.nan, -np.inf
    keys, values = case.written("float32")
    attend(isa, case, "float32")
    np.testing.assert_array_equal(case.keys.array, keys)
    np.testing.assert_array_equal(case.values.array, values)
    assert {0, 127, -128} == set(keys.reshape(-1, 40)[case.paged.slots[1], :3])


@pytest.mark.parametrize("dtype", DENSE)
def test_bits_do_not_depend_on_batch_chunks_or_threads(
    isa: Native, dtype: str, rng: np.random.Generator
) -> None:
    case = case_of(rng, [150, 70, 200], [150, 30, 1], heads=4, kv_heads=2, dim=40, block=16)
    whole = attend(isa, case, dtype).array
    threads = isa.control.num_threads()
    try:
        for count, step in ((1, 150), (2, 16), (3, 7), (2, 1)):
            isa.control.set_num_threads(count)
            for sequence, queries in enumerate(case.paged.queries):
                for first in range(0, int(queries), step):
                    size = min(step, int(queries) - first)
                    part, rows = sub_case(case.paged, sequence, first, size)
                    out = attend(isa, replace(case, paged=part), dtype)
                    np.testing.assert_array_equal(out.array, whole[rows])
    finally:
        isa.control.set_num_threads(threads)


@pytest.mark.parametrize("dtype", DENSE)
def test_bits_do_not_depend_on_the_paging(
    isa: Native, dtype: str, rng: np.random.Generator
) -> None:
    """Also with caches as halves of one allocation [NB, 2, BS, KH, D], off any boundary."""
    case = case_of(rng, [100], [9], heads=4, kv_heads=2, dim=24, block=16)
    expected = attend(isa, case, dtype).array
    both = misaligned(Tensor(np.stack([case.keys.array, case.values.array], 1), "int8"), 3)
    halves = [Tensor(both.array[:, i], "int8") for i in range(2)]
    out = attend(isa, replace(case, keys=halves[0], values=halves[1]), dtype)
    np.testing.assert_array_equal(out.array, expected)
    rows = case.paged.tables[0]
    order = np.argsort(rows)
    flat = [Tensor(c.array[rows].reshape(1, -1, 2, 24), "int8") for c in (case.keys, case.values)]
    slots = case.paged.slots
    moved = order[np.searchsorted(rows[order], slots // 16)] * 16 + slots % 16
    paged = replace(case.paged, tables=np.zeros((1, 1), np.int32), slots=moved.astype(np.int32))
    out = attend(isa, Case(paged, flat[0], flat[1], case.scales, 4), dtype)
    np.testing.assert_array_equal(out.array, expected)


def codes_of(given: Attention, rng: np.random.Generator) -> Tensor:
    """Makes the half's caches int8 and returns their scales."""
    shape = given.caches[0].array.shape
    given.caches = [Tensor(rng.integers(-128, 128, shape, np.int8), "int8") for _ in range(2)]
    given.attributes[0].array[7] |= CACHE_SCALES
    scales = rng.uniform(0.01, 0.1, (4, KV_HEADS * DIM))
    return tensor(scales * [[1], [50], [1], [-50]], "float32")


def run_half(isa: Native, given: Attention, scales: Tensor) -> tuple[Tensor, Tensor]:
    """The operations of an attention half, norm and rotation included, one after another."""
    normed, summed = add_norm(isa, given.x, given.residual, given.gamma)
    qkv = empty((TOKENS, (HEADS + 2 * KV_HEADS) * DIM), given.x.dtype)
    isa.call("linear", normed, 3, given.weights, None, qkv)
    integers = Tensor(given.attributes[0].array.copy(), "int32")
    integers.array[6] = 0
    attended = empty((TOKENS, HEADS * DIM), given.x.dtype)
    block = [qkv, *given.block, *given.caches, integers, given.attributes[1], scales, attended]
    isa.call("attention_block", block, 14)
    y = empty((TOKENS, HIDDEN), given.x.dtype)
    isa.call("linear", attended, 1, [given.output], None, y)
    return y, summed


@pytest.mark.parametrize("dtype", DENSE)
def test_a_norm_and_a_rotation_come_first(
    isa: Native, dtype: str, rng: np.random.Generator
) -> None:
    """The codes are those of what a cache of floats would hold."""
    given = attention(rng, dtype)
    floats = copies(given.caches)
    qkv = tensor(rng.standard_normal((TOKENS, (HEADS + 2 * KV_HEADS) * DIM)), dtype)
    out = empty((TOKENS, HEADS * DIM), dtype)
    isa.call("attention_block", [qkv, *given.block, *floats, *given.attributes, out], 13)
    scales = codes_of(given, rng)
    before = copies(given.caches)
    call = [qkv, *given.block, *given.caches, *given.attributes, scales, out]
    isa.call("attention_block", call, 14)
    slots = given.block[4].array
    for i, first in ((0, 0), (1, 2)):
        stored = floats[i].wide().reshape(-1, KV_HEADS * DIM)[slots[slots >= 0]]
        codes = before[i].array.reshape(-1, KV_HEADS * DIM)
        codes[slots[slots >= 0]] = primitives.quantize(stored, *scales.array[first : first + 2])
        np.testing.assert_array_equal(given.caches[i].array.reshape(codes.shape), codes)


@pytest.mark.parametrize("dtype", DENSE)
def test_a_half_and_a_decoder_equal_their_operations(
    isa: Native, dtype: str, rng: np.random.Generator
) -> None:
    first, second = attention(rng, dtype), attention(rng, dtype)
    second.block[2:], second.attributes = first.block[2:], first.attributes
    scales = [codes_of(given, rng) for given in (first, second)]
    before = [copies(given.caches) for given in (first, second)]
    found = [empty((TOKENS, HIDDEN), dtype) for _ in range(2)]
    call = [second.x, second.residual, second.gamma, *second.weights, second.output]
    call += [*second.block[:2], scales[1], *second.block[2:], *second.caches, *second.attributes]
    isa.call("attention_sublayer", [*call, *found], len(call))
    caches, second.caches = second.caches, copies(before[1])
    y, summed = run_half(isa, second, scales[1])
    for one, other in zip([*found, *caches], [y, summed, *second.caches], strict=True):
        np.testing.assert_array_equal(one.array, other.array)

    shapes = [(HIDDEN,), (INNER, HIDDEN), (INNER, HIDDEN), (HIDDEN, INNER)]
    mlp = [[tensor(rng.standard_normal(s) / 4, dtype) for s in shapes] for _ in range(2)]
    given = [first, second]
    call = [first.x, *first.block[2:], *first.attributes]
    for half, own, rest in zip(given, scales, mlp, strict=True):
        call += [half.gamma, *half.weights, half.output, *half.block[:2], own, *rest]
    call += [*(pair[0] for pair in before), *(pair[1] for pair in before)]
    isa.call("decoder_layers", [*call, *found], len(call))
    first.caches, second.caches = (copies(half.caches) for half in given)
    x, residual = first.x, tensor(np.zeros((TOKENS, HIDDEN)), dtype)
    for half, own, rest in zip(given, scales, mlp, strict=True):
        half.x, half.residual = x, residual
        middle = run_half(isa, half, own)
        x, residual = (empty((TOKENS, HIDDEN), dtype) for _ in range(2))
        isa.call("mlp_sublayer", [*middle, *rest, tensor([EPSILON], "float32"), x, residual], 7)
    np.testing.assert_array_equal(found[0].array, x.array)
    np.testing.assert_array_equal(found[1].array, residual.array)
    assert np.isfinite(x.wide()).all()


def test_what_does_not_fit_is_refused(library: Native, rng: np.random.Generator) -> None:
    case = case_of(rng, [5], [2], heads=2, kv_heads=1, dim=8, block=16)
    inputs, out = case.inputs("bfloat16"), empty((2, 16), "bfloat16")
    floats = tensor(case.paged.keys, "bfloat16")
    plain = Tensor(inputs[11].array.copy(), "int32")
    plain.array[7] = 0
    wrong_scales = [tensor(np.ones(shape), "float32") for shape in ((4, 7), (2, 8), (32,))]
    for replaced, count, message in (
        ({9: floats}, 14, "key_cache has dtype bfloat16; expected int8"),
        ({10: floats}, 14, "value_cache has dtype bfloat16; expected int8"),
        ({11: plain}, 14, "got 14 tensors; int_attributes ask for 13"),
        ({}, 13, "got 13 tensors; int_attributes ask for 14"),
        ({}, 12, "got 12 tensors; expected at least 13"),
        ({13: tensor(np.ones((4, 8)), "bfloat16")}, 14, "cache_scales has dtype bfloat16"),
        *(({13: wrong}, 14, "expected [4, 8]") for wrong in wrong_scales),
        ({13: Tensor(case.scales.array[:, ::-1], "float32")}, 14, "cache_scales has a stride"),
    ):
        tensors = [replaced.get(i, each) for i, each in enumerate(inputs)][:count]
        with pytest.raises(NativeError, match=re.escape(message)):
            library.call("attention_block", [*tensors, out], count)
    without = [each if i != 11 else plain for i, each in enumerate(inputs)][:13]
    with pytest.raises(NativeError, match="key_cache has dtype int8; expected bfloat16"):
        library.call("attention_block", [*without, out], 13)
