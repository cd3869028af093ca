# SPDX-License-Identifier: Apache-2.0
"""The coding of compressed weights loses nothing, is canonical, and refuses every broken byte."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vllm_mindspore.quantization import sparse_codec
from vllm_mindspore.quantization.sparse_codec import UNIT, Compressed, decode, encode, validate

# Around the edges of tiles and words: one, a word, a tile, and both sides of each.
OUTPUTS = st.sampled_from([1, 2, 127, 128, 129, 255, 256, 300])
INPUTS = st.sampled_from([1, 63, 64, 65, 192, 255, 256, 257, 320, 513])
SPARSITIES = st.sampled_from([0.0, 0.02, 0.1, 0.13, 0.5, 0.7, 0.9, 0.999, 1.0])
SEEDS = st.integers(0, 2**32 - 1)


def weights(outputs: int, inputs: int, sparsity: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-128, 128, (outputs, inputs), dtype=np.int8)
    codes[rng.random((outputs, inputs)) < sparsity] = 0
    return codes


@settings(deadline=None, max_examples=60)
@given(OUTPUTS, INPUTS, SPARSITIES, SEEDS)
@example(128, 256, 1.0, 0)
@example(129, 257, 0.0, 0)
def test_nothing_is_lost(outputs: int, inputs: int, sparsity: float, seed: int) -> None:
    weight = weights(outputs, inputs, sparsity, seed)
    found = encode(weight)
    validate(found, outputs, inputs)
    assert np.array_equal(decode(found, outputs, inputs), weight)
    assert found.stream.size % UNIT == 0
    assert found.index.size == sparse_codec.index_bytes(outputs, inputs)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.7, 0.9])
def test_size(sparsity: float) -> None:
    """At most (1 - sparsity) + 0.14 of the bytes, and never more than dense."""
    weight = weights(256, 1024, sparsity, 0)
    share = np.count_nonzero(weight) / weight.size
    size = encode(weight).stream.size / weight.size
    assert size <= min(share + 0.14, 1.001)


def test_bit_by_bit() -> None:
    """A weight of three inputs, against what the page says."""
    weight = np.array([[0, 5, 0], [0, 0, 0], [-1, 0, 7]], np.int8)
    found = encode(weight)
    stream = found.stream.view(np.uint8)
    # 3 rows of one word: 24 bytes of masks; then 3 codes; then the guard.
    assert stream.size == 64 + 64 + 64
    assert stream[:24].tolist() == [2, *[0] * 7, *[0] * 8, 5, *[0] * 7]
    assert stream[64:67].tolist() == [5, 255, 7]
    assert not stream[24:64].any()
    assert not stream[67:].any()
    # 2 units, bitmap (2), at 0.
    assert found.index.view("<u8").tolist() == [2 | 2 << 13]


def test_every_tile_in_the_shortest_way() -> None:
    weight = np.zeros((256, 512), np.int8)
    weight[:128, 256:] = 1  # dense
    weight[130, 3] = 9  # bitmap
    entries = encode(weight).index.view("<u8").tolist()
    fields = [(entry & 8191, entry >> 13 & 7, entry >> 16) for entry in entries]
    assert fields == [(0, 0, 0), (512, 1, 0), (65, 2, 512), (0, 0, 577)]


def test_equally_long_is_dense() -> None:
    """One row of 64 codes: masks and codes take two units, the codes alone one."""
    assert encode(np.ones((1, 64), np.int8)).index.view("<u8").tolist() == [1 | 1 << 13]
    # 8 rows: 8 units dense; masks one unit and 7 of codes.
    weight = np.ones((8, 64), np.int8)
    weight[0] = 0
    assert encode(weight).index.view("<u8").tolist() == [8 | 1 << 13]


BASE_SHAPE = 130, 260
BASE = encode(weights(*BASE_SHAPE, 0.5, 1))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_flipped_bit_is_refused_or_another_weight(data: st.DataObject) -> None:
    """A flip is either found, or it made a code another one that is not zero: nothing else is."""
    stream, index = BASE.stream.copy(), BASE.index.copy()
    flipped = data.draw(st.sampled_from([stream, index]))
    position = data.draw(st.integers(0, flipped.size - 1))
    flipped.view(np.uint8)[position] ^= 1 << data.draw(st.integers(0, 7))
    changed = Compressed(stream, index)
    try:
        found = decode(changed, *BASE_SHAPE)
    except ValueError:
        return
    assert flipped is stream
    before = decode(BASE, *BASE_SHAPE)
    assert np.count_nonzero(found != before) == 1
    assert np.array_equal(found == 0, before == 0)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=300), st.binary(min_size=16, max_size=16))
def test_garbage_is_refused(stream: bytes, index: bytes) -> None:
    garbage = Compressed(np.frombuffer(stream, np.int8), np.frombuffer(index, np.int8))
    try:
        found = decode(garbage, 100, 300)
    except ValueError:
        return
    assert not found.any()  # only zero tiles need so few bytes


@pytest.mark.parametrize("cut", [1, 63, 64, 65, 128, 1000])
def test_truncation(cut: int) -> None:
    with pytest.raises(ValueError, match=r"tile \d+ \(outputs from .*expected|stream of|zeros"):
        validate(replace(BASE, stream=BASE.stream[:-cut]), *BASE_SHAPE)


def test_more_than_the_tiles_have() -> None:
    longer = np.concatenate([BASE.stream, np.zeros(64, np.int8)])
    with pytest.raises(ValueError, match=r"expected a stream of \d+ bytes.*found"):
        validate(replace(BASE, stream=longer), *BASE_SHAPE)


def test_other_shapes_have_another_index() -> None:
    with pytest.raises(ValueError, match=r"index of 16 bytes for 130 outputs and 256 inputs"):
        validate(BASE, 130, 256)


def entry(length: int, encoding: int, offset: int) -> np.ndarray:
    return np.array([length | encoding << 13 | offset << 16], "<u8").view(np.int8)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (entry(2, 2, 1), "offset 0 .* found 1"),
        (entry(2, 3, 0), "encoding 0 .* found 3"),
        (entry(8191, 2, 0), "bytes up to 128 at most, found 524224"),
        (entry(2, 0, 0), "no bytes of a zero tile, found 128"),
        (entry(2, 1, 0), "192 bytes of a dense tile, found 128"),
        (entry(0, 2, 0), "64 bytes of masks at least, found 0"),
        (entry(1, 2, 0), "64 bytes for 3 codes that are set, found 0"),
    ],
)
def test_index_entries(index: np.ndarray, expected: str) -> None:
    found = encode(np.array([[0, 5, 0], [0, 0, 0], [-1, 0, 7]], np.int8))
    with pytest.raises(
        ValueError, match=rf"tile 0 \(outputs from 0, inputs from 0\): .*{expected}"
    ):
        validate(replace(found, index=index), 3, 3)


@pytest.mark.parametrize(
    ("position", "value", "expected"),
    [
        (0, 2 | 8, "bits behind the last input"),
        (30, 1, "padding of the masks"),
        (64, 0, "a code is zero"),
        (67, 1, "padding of the codes"),
        (128, 1, "the bytes behind the last tile"),
    ],
)
def test_bytes_of_a_bitmap(position: int, value: int, expected: str) -> None:
    found = encode(np.array([[0, 5, 0], [0, 0, 0], [-1, 0, 7]], np.int8))
    stream = found.stream.copy()
    stream[position] = value
    with pytest.raises(ValueError, match=expected):
        validate(replace(found, stream=stream), 3, 3)


def test_codes_behind_the_last_input_of_a_dense_tile() -> None:
    found = encode(np.ones((1, 60), np.int8))
    stream = found.stream.copy()
    stream[60] = 1
    with pytest.raises(ValueError, match="codes behind the last input: expected zeros, found 1"):
        validate(replace(found, stream=stream), 1, 60)
