# SPDX-License-Identifier: Apache-2.0
"""The library codes weights as the numpy reference does, and refuses what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_mindspore.device import sparse_weights
from vllm_mindspore.device.kernel_library import KernelLibraryError
from vllm_mindspore.quantization import sparse_codec
from vllm_mindspore.quantization.sparse_codec import Compressed, Int8s


def codes(seed: int, outputs: int, inputs: int, zeros: float) -> Int8s:
    """A weight whose first tile is zero every other time."""
    rng = np.random.default_rng(seed)
    weight = rng.integers(-128, 128, (outputs, inputs), np.int8)
    weight[rng.random(weight.shape) < zeros] = 0
    if seed % 2:
        weight[:128, :256] = 0
    return weight


weights = st.builds(
    codes, st.integers(0, 99), st.integers(1, 300), st.integers(1, 600), st.floats(0, 1)
)


@settings(max_examples=40, deadline=None)
@given(weights)
def test_both_codings_are_the_same(weight: Int8s) -> None:
    stream, index = sparse_weights.encode(weight)
    reference = sparse_codec.encode(weight)
    assert np.array_equal(stream, reference.stream)
    assert np.array_equal(index, reference.index)
    sparse_weights.validate(stream, index, *weight.shape)
    assert np.array_equal(sparse_weights.decode(stream, index, *weight.shape), weight)


def refused(check: Callable[[], object]) -> bool:
    try:
        check()
    except ValueError:
        return True
    return False


@settings(max_examples=300, deadline=None)
@given(weights, st.data())
def test_bits_that_flip_are_found_by_both_or_by_none(weight: Int8s, data: st.DataObject) -> None:
    """A flipped bit of a value gives another weight; any other is an error."""
    stream, index = sparse_weights.encode(weight)
    broken = data.draw(st.sampled_from([stream, index])).view(np.uint8)
    for _ in range(data.draw(st.integers(1, 2))):
        broken[data.draw(st.integers(0, broken.size - 1))] ^= 1 << data.draw(st.integers(0, 7))
    shape = weight.shape
    ours = refused(lambda: sparse_weights.validate(stream, index, *shape))
    reference = refused(lambda: sparse_codec.validate(Compressed(stream, index), *shape))
    assert ours == reference
    if not ours:
        again = sparse_codec.decode(Compressed(stream, index), *shape)
        assert np.array_equal(sparse_weights.decode(stream, index, *shape), again)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=700), st.binary(min_size=8, max_size=32), st.integers(1, 9))
def test_noise_is_refused_by_both_or_by_none(stream: bytes, index: bytes, outputs: int) -> None:
    given_stream, given_index = (np.frombuffer(part, np.int8) for part in (stream, index))
    ours = refused(lambda: sparse_weights.validate(given_stream, given_index, outputs, 20))
    pair = Compressed(given_stream, given_index)
    assert ours == refused(lambda: sparse_codec.validate(pair, outputs, 20))


# A weight of one tile of 3 x 70: masks of 48 bytes in 64, values in 64, 64 of guard.
BITMAP, VALUES, GUARD = 0, 64, 128


def tile() -> tuple[Int8s, Int8s]:
    weight = np.zeros((3, 70), np.int8)
    weight[1, :5] = 7
    stream, index = sparse_weights.encode(weight)
    assert (stream.size, index.size) == (192, 8)
    return stream, index


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (BITMAP + 15, 1, "bits of a row of masks: expected 70, found 128"),
        (BITMAP + 48, 1, "bytes behind the masks that are not 0: expected 0, found 1"),
        (VALUES, 0, "values that are 0: expected 0, found 1"),
        (VALUES + 5, 1, "bytes behind the values that are not 0: expected 0, found 1"),
        (BITMAP, 1, "values that are 0: expected 0, found 1"),
        (GUARD, 1, "the last 64 bytes of the stream are not zero"),
    ],
)
def test_broken_streams_are_named(place: int, value: int, message: str) -> None:
    stream, index = tile()
    stream[place] = value
    with pytest.raises(ValueError, match=re.escape(message)):
        sparse_weights.validate(stream, index, 3, 70)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (2 | 2 << 13 | 1 << 16, "offset in bytes: expected 0, found 64"),
        (3 | 2 << 13, "the stream has 192 bytes; expected 256"),
        (2 | 1 << 13, "tile 0 takes bytes 0 to 384"),
        (2 | 0 << 13, "length in bytes: expected 0, found 128"),
        (2 | 5 << 13, "unknown encoding 5"),
    ],
)
def test_broken_entries_are_named(entry: int, message: str) -> None:
    stream, _ = tile()
    index = np.array([entry], "<u8").view(np.int8)
    with pytest.raises(ValueError, match=re.escape(message)):
        sparse_weights.validate(stream, index, 3, 70)


def test_the_tile_is_named() -> None:
    weight = codes(0, 256, 512, 0.5)
    stream, index = sparse_weights.encode(weight)
    entry = int(index.view("<u8")[3])
    stream[64 * (entry >> 16) + 4096] = 0
    message = "tile 3 (outputs from 128, inputs from 256): values that are 0: expected 0, found 1"
    with pytest.raises(ValueError, match=re.escape(message)):
        sparse_weights.validate(stream, index, 256, 512)


def test_sizes_must_fit() -> None:
    stream, index = tile()
    with pytest.raises(ValueError, match=r"index has shape \[8\]; expected \[16\]"):
        sparse_weights.validate(stream, index, 3, 300)
    with pytest.raises(ValueError, match="has 100 bytes; expected a multiple of 64"):
        sparse_weights.validate(stream[:100], index, 3, 70)
    with pytest.raises(KernelLibraryError, match="at least one input"):
        sparse_weights.encode(np.zeros((3, 0), np.int8))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1 << 60, 1 << 61), "the size of its index exceeds 64 bits"),
        ((1 << 61, 1 << 15), "the size of its index exceeds 64 bits"),
        ((2**64 + 3, 70), "expected numbers of at most 64 bits"),
        ((3, 70 - 2**64), "expected numbers of at most 64 bits"),
        ((-3, 70), "expected at least one input"),
    ],
)
def test_shapes_that_no_number_holds(shape: tuple[int, int], message: str) -> None:
    """The product of the first two is 0 in 64 bits, the others are 3 x 70 there."""
    stream, index = tile()
    for given_index in (index, index[:0]):
        with pytest.raises(ValueError, match=message):
            sparse_weights.validate(stream, given_index, *shape)
