# SPDX-License-Identifier: Apache-2.0
"""Paged attention and the fused attention block: values, shapes, bitwise invariance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from ops.tests import reference
from ops.tests.native import (
    DENSE,
    UNIT_ROUNDOFF,
    Native,
    Tensor,
    empty,
    misaligned,
    tensor,
    with_row_gap,
)
from ops.tests.reference import PagedCase
from vllm_mindspore.device.kernel_library import KernelLibrary

# Float32 work before the rounding of the result, relative to the largest value (outputs are
# averages of values): scores of up to 256 products, exp, sums of up to 300 weights.
FLOAT_STEPS = 64


def ints(values: np.ndarray) -> Tensor:
    return Tensor(values, "int32")


def attend(
    library: Native, case: PagedCase, dtype: str, heads: int, *, query: Tensor | None = None
) -> Tensor:
    """The operation on a case whose tensors are rounded to dtype."""
    keys, values = tensor(case.keys, dtype), tensor(case.values, dtype)
    query = query or tensor(case.query, dtype)
    out = empty(query.array.shape, dtype)
    tables = (ints(case.tables), ints(case.contexts), ints(case.queries))
    kv_heads, dim = case.keys.shape[2:]
    library.call(
        "paged_attention", query, keys, values, *tables, heads, kv_heads, float(dim**-0.5), out
    )
    return out


def check(out: Tensor, case: PagedCase, dtype: str, heads: int) -> None:
    keys, values, query = (tensor(v, dtype).wide() for v in (case.keys, case.values, case.query))
    scale = case.keys.shape[3] ** -0.5
    exact = reference.paged_attention(query, keys, values, case, heads, scale)
    absolute = FLOAT_STEPS * UNIT_ROUNDOFF["float32"] * np.abs(values).max()
    assert (np.abs(out.wide() - exact) <= UNIT_ROUNDOFF[dtype] * np.abs(exact) + absolute).all()


@pytest.mark.parametrize("dtype", DENSE)
def test_every_head_width(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    for dim in (*range(1, 40), 64, 72, 80, 96, 128, 192, 256):
        for queries in ([2, 1], [9, 26]):
            case = reference.paged_case(
                rng, [9, 70], queries, heads=2, kv_heads=1, dim=dim, block=16
            )
            check(attend(isa, case, dtype, 2), case, dtype, 2)


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("block", [16, 17, 32, 48, 64, 100, 128])
def test_block_sizes_and_mixed_batches(
    isa: Native, dtype: str, block: int, rng: np.random.Generator
) -> None:
    """Prefill, chunked prefill and decode in one call; contexts around the key block of 64."""
    contexts = [1, 63, 64, 65, 129, 200, 0]
    queries = [1, 63, 1, 5, 2, 40, 0]
    case = reference.paged_case(rng, contexts, queries, heads=6, kv_heads=2, dim=24, block=block)
    check(attend(isa, case, dtype, 6), case, dtype, 6)


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 4), (8, 1), (10, 2), (80, 2)])
def test_head_groups(isa: Native, heads: int, kv_heads: int, rng: np.random.Generator) -> None:
    case = reference.paged_case(
        rng, [40, 90], [40, 3], heads=heads, kv_heads=kv_heads, dim=16, block=16
    )
    check(attend(isa, case, "float32", heads), case, "float32", heads)


def sub_case(case: PagedCase, sequence: int, first: int, count: int) -> tuple[PagedCase, slice]:
    """Tokens first .. first + count - 1 of one sequence as a batch of its own."""
    row = int(case.queries[:sequence].sum()) + first
    rows = slice(row, row + count)
    context = case.contexts[sequence] - case.queries[sequence] + first + count
    one = PagedCase(
        case.query[rows],
        case.new_keys[rows],
        case.new_values[rows],
        case.keys,
        case.values,
        case.slots[rows],
        case.tables[sequence : sequence + 1],
        np.array([context], np.int32),
        np.array([count], np.int32),
    )
    return one, rows


def on_tiles(library: Native, dtype: str) -> bool:
    """Whether tasks of many rows are computed in another order than those of few."""
    return library.control.isa_name() == "amx" and dtype != "float32"


def check_chunks(isa: Native, case: PagedCase, dtype: str, step: int, whole: np.ndarray) -> None:
    """Tokens of each sequence, `step` at a time, have the bits they have in the whole case."""
    for sequence, queries in enumerate(case.queries):
        for first in range(0, int(queries), step):
            part, rows = sub_case(case, sequence, first, min(step, int(queries) - first))
            np.testing.assert_array_equal(attend(isa, part, dtype, 4).array, whole[rows])


@pytest.mark.parametrize("dtype", DENSE)
def test_bits_do_not_depend_on_batch_chunks_or_threads(
    isa: Native, settings: KernelLibrary, dtype: str, rng: np.random.Generator
) -> None:
    case = reference.paged_case(
        rng, [150, 70, 200], [150, 30, 1], heads=4, kv_heads=2, dim=40, block=16
    )
    settings.set_batch_invariant(on_tiles(isa, dtype))
    whole = attend(isa, case, dtype, 4).array
    for threads, step in ((1, 150), (2, 16), (3, 7), (2, 1)):
        settings.set_num_threads(threads)
        check_chunks(isa, case, dtype, step, whole)


@pytest.mark.parametrize("dtype", DENSE)
def test_bits_of_many_rows_do_not_depend_on_batch_or_threads(
    isa: Native, settings: KernelLibrary, dtype: str, rng: np.random.Generator
) -> None:
    """Chunks of 32 tokens and more: they are taken in tasks of 16 tokens, two heads each."""
    case = reference.paged_case(
        rng, [160, 70, 200], [160, 64, 32], heads=4, kv_heads=2, dim=40, block=16
    )
    whole = attend(isa, case, dtype, 4).array
    for threads, step in ((1, 160), (2, 32), (3, 64)):
        settings.set_num_threads(threads)
        check_chunks(isa, case, dtype, step, whole)
    settings.set_batch_invariant(True)
    assert (attend(isa, case, dtype, 4).array != whole).any() == on_tiles(isa, dtype)


@pytest.mark.parametrize("dtype", DENSE)
def test_one_row_more_than_a_tile(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    """Passes of 16 and 17 rows, and of 32 and 1: those of a token with 33 heads."""
    for heads, kv_heads, queries in ((1, 1, 16), (1, 1, 17), (33, 1, 3), (17, 1, 2)):
        case = reference.paged_case(
            rng, [80], [queries], heads=heads, kv_heads=kv_heads, dim=48, block=16
        )
        check(attend(isa, case, dtype, heads), case, dtype, heads)


@pytest.mark.parametrize("dtype", DENSE)
def test_bits_do_not_depend_on_the_paging(
    isa: Native, dtype: str, rng: np.random.Generator
) -> None:
    case = reference.paged_case(rng, [100], [9], heads=4, kv_heads=2, dim=32, block=16)
    rows = case.tables[0]
    keys, values = (c[rows].reshape(1, -1, 2, 32) for c in (case.keys, case.values))
    one = PagedCase(
        case.query, case.new_keys, case.new_values, keys, values, case.slots,
        np.zeros((1, 1), np.int32), case.contexts, case.queries,
    )  # fmt: skip
    np.testing.assert_array_equal(
        attend(isa, case, dtype, 4).array, attend(isa, one, dtype, 4).array
    )


def test_decode_without_query_lens(isa: Native, rng: np.random.Generator) -> None:
    case = reference.paged_case(rng, [5, 70], [1, 1], heads=2, kv_heads=1, dim=16, block=16)
    query = tensor(case.query, "float32")
    out = empty(query.array.shape, "float32")
    caches = [tensor(v, "float32") for v in (case.keys, case.values)]
    isa.call(
        "paged_attention",
        query,
        *caches,
        ints(case.tables),
        ints(case.contexts),
        None,
        2,
        1,
        0.25,
        out,
    )
    check(out, case, "float32", 2)


def test_padding_rows_are_zero(isa: Native, rng: np.random.Generator) -> None:
    case = reference.paged_case(rng, [5], [2], heads=2, kv_heads=1, dim=16, block=16)
    padded = tensor(np.concatenate([case.query, np.ones((3, 32))]), "float32")
    out = attend(isa, case, "float32", 2, query=padded)
    check(Tensor(out.array[:2], "float32"), case, "float32", 2)
    assert not out.array[2:].any()


@pytest.mark.parametrize("dtype", DENSE)
def test_strided_caches_and_query(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    """Caches as halves of one allocation [NB, 2, BS, KH, D], the query as part of qkv."""
    case = reference.paged_case(rng, [40, 20], [3, 1], heads=4, kv_heads=2, dim=16, block=16)
    both = misaligned(tensor(np.stack([case.keys, case.values], 1), dtype), 2)
    keys, values = (Tensor(both.array[:, i], dtype) for i in range(2))
    query = with_row_gap(tensor(case.query, dtype), 5)
    out = empty(case.query.shape, dtype)
    tables = (ints(case.tables), ints(case.contexts), ints(case.queries))
    isa.call("paged_attention", query, keys, values, *tables, 4, 2, 0.25, out)
    np.testing.assert_array_equal(out.array, attend(isa, case, dtype, 4).array)


@pytest.mark.parametrize("dtype", DENSE)
def test_garbage_in_unused_slots_is_never_read(
    isa: Native, dtype: str, rng: np.random.Generator
) -> None:
    case = reference.paged_case(rng, [37, 66], [37, 1], heads=2, kv_heads=2, dim=20, block=16)
    expected = attend(isa, case, dtype, 2).array
    used = np.zeros(case.keys.shape[:2], bool)
    for table, context in zip(case.tables, case.contexts, strict=True):
        for position in range(context):
            used[table[position // 16], position % 16] = True
    for cache in (case.keys, case.values):
        cache[~used] = np.nan
    np.testing.assert_array_equal(attend(isa, case, dtype, 2).array, expected)


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("heads", [1, 2, 3])
def test_later_values_do_not_touch_earlier_rows(
    isa: Native, dtype: str, bad: float, heads: int, rng: np.random.Generator
) -> None:
    """The last token's value is no number: only its own row may show that."""
    for length in (2, 11, 70):
        case = reference.paged_case(
            rng, [length], [length], heads=heads, kv_heads=1, dim=20, block=16
        )
        expected = attend(isa, case, dtype, heads)
        last = length - 1
        case.values[case.tables[0, last // 16], last % 16] = bad
        out = attend(isa, case, dtype, heads)
        np.testing.assert_array_equal(out.array[:last], expected.array[:last])
        assert np.isfinite(out.wide()[:last]).all()
        assert not np.isfinite(out.wide()[last]).any()


# Scores beyond float32: the query's elements times these are -infinity.
HUGE = 1e30


def hidden_block(rng: np.random.Generator, first: int, tokens: int) -> PagedCase:
    """150 keys with equal scores, but -infinity for the 64 from `first` on, and the last tokens."""
    case = reference.paged_case(rng, [150], [tokens], heads=2, kv_heads=1, dim=16, block=32)
    case.query[...] = HUGE
    case.keys[...] = 0
    for position in range(first, first + 64):
        case.keys[case.tables[0, position // 32], position % 32] = -HUGE
    return case


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("first", [0, 64])
@pytest.mark.parametrize("tokens", [1, 16])
def test_a_key_block_without_weight(
    isa: Native, dtype: str, first: int, tokens: int, rng: np.random.Generator
) -> None:
    case = hidden_block(rng, first, tokens)
    out = attend(isa, case, dtype, 2).wide()
    values = tensor(case.values, dtype).wide()[case.tables[0], :, 0].reshape(-1, 16)
    absolute = FLOAT_STEPS * UNIT_ROUNDOFF["float32"] * np.abs(values[:150]).max()
    for row, visible in enumerate(range(151 - tokens, 151)):
        seen = np.delete(values[:visible], slice(first, first + 64), 0)
        exact = np.tile(seen.mean(0), 2)
        assert (np.abs(out[row] - exact) <= UNIT_ROUNDOFF[dtype] * np.abs(exact) + absolute).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("position", [0, 1, 40, 63])
@pytest.mark.parametrize("tokens", [1, 16])
def test_a_score_that_is_no_number_shows(
    isa: Native, dtype: str, position: int, tokens: int, rng: np.random.Generator
) -> None:
    case = hidden_block(rng, 0, tokens)
    case.keys[case.tables[0, position // 32], position % 32] = np.nan
    assert np.isnan(attend(isa, case, dtype, 2).wide()).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_queries_and_keys_that_are_no_numbers(
    isa: Native, settings: KernelLibrary, dtype: str, rng: np.random.Generator
) -> None:
    """Tiles show them where vectors do, and change what vectors change: one that is -infinity takes
    a key's weight from the rows whose query is positive there."""
    case = reference.paged_case(rng, [150], [40], heads=2, kv_heads=1, dim=40, block=16)
    clean = attend(isa, case, dtype, 2).array
    case.query[7, 3], case.query[9, 45] = np.inf, np.nan
    for position, bad in ((20, -np.inf), (125, np.inf), (131, np.nan)):
        case.keys[case.tables[0, position // 16], position % 16, 0, position % 40] = bad
    found = attend(isa, case, dtype, 2)
    settings.set_batch_invariant(True)
    expected = attend(isa, case, dtype, 2)
    np.testing.assert_array_equal(np.isnan(found.wide()), np.isnan(expected.wide()))
    assert 0 < np.isnan(found.wide()).mean() < 1
    absolute = FLOAT_STEPS * UNIT_ROUNDOFF["float32"] * np.abs(case.values).max()
    error = np.abs(found.wide() - expected.wide())
    numbers = ~np.isnan(error)
    allowed = 2 * UNIT_ROUNDOFF[dtype] * np.abs(expected.wide()) + absolute
    assert (error <= allowed)[numbers].all()
    assert (found.array != clean)[numbers].any()


def block_inputs(
    case: PagedCase, dtype: str, gammas: Sequence[np.ndarray], cos: np.ndarray, sin: np.ndarray
) -> list[Tensor]:
    """Tensors of the fused node up to the caches."""
    qkv = np.concatenate([case.query, case.new_keys, case.new_values], 1)
    tensors = [tensor(v, dtype) for v in (qkv, *gammas)]
    tensors += [tensor(v, "float32") for v in (cos, sin)]
    tensors += [ints(v) for v in (case.slots, case.tables, case.contexts, case.queries)]
    return [*tensors, tensor(case.keys, dtype), tensor(case.values, dtype)]


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_attention_block_equals_the_chain(
    isa: Native, dtype: str, interleaved: bool, qk_norm: bool, rng: np.random.Generator
) -> None:
    """Bit for bit the same as norm, rotary, cache write and attention one after another."""
    heads, kv_heads, dim, rotary_dim = 6, 2, 20, 12
    case = reference.paged_case(
        rng, [70, 5, 30], [9, 5, 1], heads=heads, kv_heads=kv_heads, dim=dim, block=16
    )
    case.slots[3] = -1  # a token that must not be written
    gammas = [rng.standard_normal(dim) for _ in range(2)]
    cos, sin = reference.angles(np.arange(15), rotary_dim, interleaved=interleaved)
    inputs = block_inputs(case, dtype, gammas, cos, sin)
    flags = [heads, kv_heads, dim, rotary_dim, int(interleaved), int(qk_norm), 0, 0]
    attributes = [ints(np.array(flags, np.int32)), tensor([dim**-0.5, 1e-6], "float32")]
    out = empty((15, heads * dim), dtype)
    isa.call("attention_block", [*inputs, *attributes, out], 13)

    parts = [tensor(v, dtype) for v in (case.query, case.new_keys, case.new_values)]
    for i in range(2):
        if qk_norm:
            flat = Tensor(parts[i].array.reshape(-1, dim), dtype)
            normed = empty(flat.array.shape, dtype)
            isa.call("rms_norm", flat, inputs[1 + i], 1e-6, normed, None)
            parts[i] = Tensor(normed.array.reshape(15, -1), dtype)
        turned = empty(parts[i].array.shape, dtype)
        isa.call("rotary", parts[i], inputs[3], inputs[4], dim, interleaved, turned)
        parts[i] = turned
    caches = [tensor(case.keys, dtype), tensor(case.values, dtype)]
    isa.call("reshape_and_cache", parts[1], parts[2], *caches, inputs[5])
    expected = empty((15, heads * dim), dtype)
    isa.call(
        "paged_attention",
        parts[0],
        *caches,
        *inputs[6:9],
        heads,
        kv_heads,
        float(dim**-0.5),
        expected,
    )
    np.testing.assert_array_equal(inputs[9].array, caches[0].array)
    np.testing.assert_array_equal(inputs[10].array, caches[1].array)
    np.testing.assert_array_equal(out.array, expected.array)
    assert not np.isnan(out.wide()).any()
