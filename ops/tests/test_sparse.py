# SPDX-License-Identifier: Apache-2.0
"""Products with compressed weights equal those with plain ones to the last bit, at every size, on
each instruction set; weights that do not fit are refused, whatever else they hold gives values."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ops.tests.native import DENSE, Native, NativeError, Tensor, empty
from ops.tests.sparse_weights import Sparse, products, readers, sparse

# Around words of 64, tiles of 256 inputs, and steps of 16, 64 and 128 outputs.
INNERS = (1, 3, 63, 64, 65, 127, 128, 191, 192, 255, 256, 257, 300, 511, 513, 1030)
OUTPUTS = (1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 200, 257)
ROWS = (*range(1, 34), 64)


def check(library: Native, rng: np.random.Generator, rows: int, weights: list[Sparse]) -> None:
    x = rng.integers(-128, 128, (rows, weights[0].weight.shape[1]), np.int8)
    expected, found = products(library, x, weights, "float32")
    assert np.array_equal(found.array, expected.array)


def test_every_tail_of_inputs(isa: Native, rng: np.random.Generator) -> None:
    for inner in INNERS:
        weight = sparse(rng, 40, inner, 0.5)
        for _ in readers(isa):
            for rows in (1, 2, 4, 5, 9):
                check(isa, rng, rows, [weight])


def test_every_tail_of_outputs(isa: Native, rng: np.random.Generator) -> None:
    for outputs in OUTPUTS:
        weight = sparse(rng, outputs, 300, 0.7)
        for _ in readers(isa):
            for rows in (1, 3, 8, 17):
                check(isa, rng, rows, [weight])


@pytest.mark.parametrize("zeros", [0.0, 0.3, 0.9, 1.0])
def test_every_number_of_rows(isa: Native, zeros: float, rng: np.random.Generator) -> None:
    weight = sparse(rng, 150, 330, zeros)
    for _ in readers(isa):
        for rows in ROWS:
            check(isa, rng, rows, [weight])


def test_many_rows(isa: Native, rng: np.random.Generator) -> None:
    """More than a task takes, of few outputs, so that rows are shared; and long ones."""
    for outputs, inner in ((70, 90), (130, 5000)):
        weight = sparse(rng, outputs, inner, 0.6)
        for _ in readers(isa):
            check(isa, rng, 512 if inner < 100 else 40, [weight])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_and_several_weights(isa: Native, threads: int, rng: np.random.Generator) -> None:
    before = isa.control.num_threads()
    weights = [sparse(rng, outputs, 520, 0.5) for outputs in (300, 40, 128)]
    isa.control.set_num_threads(threads)
    try:
        for rows in (1, 6, 30):
            check(isa, rng, rows, weights)
    finally:
        isa.control.set_num_threads(before)


@pytest.mark.parametrize("dtype", DENSE)
def test_each_output_type_and_token_scales(
    isa: Native, dtype: str, rng: np.random.Generator
) -> None:
    weight = sparse(rng, 90, 200, 0.5, dtype)
    for rows in (1, 20):
        x = Tensor(rng.integers(-128, 128, (rows, 200), np.int8), "int8")
        token = Tensor(rng.uniform(0.1, 2, rows).astype(np.float32), "float32")
        plain, compressed = empty((rows, 90), dtype), empty((rows, 90), dtype)
        isa.call("int8_linear", x, token, 1, weight.plain(), plain)
        isa.call("sparse_linear", x, token, 1, weight.compressed(), compressed)
        assert np.array_equal(compressed.array, plain.array)


def test_rows_of_x_may_be_apart(isa: Native, rng: np.random.Generator) -> None:
    weight = sparse(rng, 30, 100, 0.5)
    for rows in (2, 20):
        wide = rng.integers(-128, 128, (rows, 107), np.int8)
        expected, _ = products(isa, np.ascontiguousarray(wide[:, :100]), [weight], "float32")
        y = empty((rows, 30), "float32")
        isa.call("sparse_linear", Tensor(wide[:, :100], "int8"), None, 1, weight.compressed(), y)
        assert np.array_equal(y.array, expected.array)


def test_no_rows_and_no_outputs(library: Native, rng: np.random.Generator) -> None:
    weight = sparse(rng, 30, 100, 0.5)
    x, y = Tensor(np.zeros((0, 100), np.int8), "int8"), empty((0, 30), "float32")
    library.call("sparse_linear", x, None, 1, weight.compressed(), y)


def with_entry(weight: Sparse, tile: int, length: int, encoding: int, offset: int) -> Tensor:
    entries = weight.index.array.copy().view(np.uint64)
    entries[tile] = length | encoding << 13 | offset << 16
    return Tensor(entries.view(np.int8), "int8")


@pytest.mark.parametrize(
    ("encoding", "offset", "message"),
    [
        (3, 0, "tile 1 has the unknown encoding 3; expected 0 (zero), 1 (dense) or 2 (bitmap)"),
        (7, 0, "tile 1 has the unknown encoding 7"),
        (2, 1 << 40, "tile 1 takes bytes"),
        (1, (1 << 48) - 1, "tile 1 takes bytes"),
    ],
)
def test_entries_that_lead_out_of_the_stream_are_refused(
    isa: Native, encoding: int, offset: int, message: str, rng: np.random.Generator
) -> None:
    weight = sparse(rng, 128, 512, 0.5)
    index = with_entry(weight, 1, 1, encoding, offset)
    for rows in (1, 16):
        x, y = Tensor(np.ones((rows, 512), np.int8), "int8"), empty((rows, 128), "float32")
        given = [*weight.compressed()[:4], index]
        with pytest.raises(NativeError, match=re.escape(message)):
            isa.call("sparse_linear", x, None, 1, given, y)


@pytest.mark.parametrize(
    ("stream", "index", "message"),
    [
        (0, 16, "the stream has 0 bytes; expected a multiple of 64, at least 64"),
        (100, 16, "the stream has 100 bytes; expected a multiple of 64"),
        (64, 8, "argument index has shape [8]; expected [16]"),
        (64, 24, "argument index has shape [24]; expected [16]"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    library: Native, stream: int, index: int, message: str, rng: np.random.Generator
) -> None:
    weight = sparse(rng, 100, 300, 0.5)
    x, y = Tensor(np.ones((1, 300), np.int8), "int8"), empty((1, 100), "float32")
    made = [Tensor(np.zeros(size, np.int8), "int8") for size in (stream, index)]
    given = [made[0], *weight.compressed()[1:4], made[1]]
    with pytest.raises(NativeError, match=re.escape(message)):
        library.call("sparse_linear", x, None, 1, given, y)


def test_plain_and_compressed_weights_together_are_refused(
    library: Native, rng: np.random.Generator
) -> None:
    weight = sparse(rng, 10, 30, 0.5)
    x, y = Tensor(np.ones((1, 30), np.int8), "int8"), empty((1, 20), "float32")
    given = [*weight.compressed(), *weight.plain(), None]
    with pytest.raises(NativeError, match="some of the weights are compressed and some are not"):
        library.call("sparse_linear", x, None, 2, given, y)


def test_streams_of_noise_give_values(isa: Native, rng: np.random.Generator) -> None:
    """Masks that ask for more values than there are, at the very end of the stream, too."""
    for _ in readers(isa):
        for rows in (1, 7, 20):
            weight = sparse(rng, 200, 600, 0.5)
            noise = rng.integers(-128, 128, weight.stream.array.size, np.int8)
            noise[rng.random(noise.size) < 0.5] = -1
            given = [Tensor(noise, "int8"), *weight.compressed()[1:]]
            x = Tensor(rng.integers(-128, 128, (rows, 600), np.int8), "int8")
            y = empty((rows, 200), "float32")
            isa.call("sparse_linear", x, None, 1, given, y)
            assert np.isfinite(y.array).all()
