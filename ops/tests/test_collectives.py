# SPDX-License-Identifier: Apache-2.0
"""Ranks in real processes: sums to the last bit, pieces, and what happens when a rank is gone."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ops.tests import ranks
from ops.tests.native import (
    Native,
    Tensor,
    TensorView,
    empty,
    native_path,
    tensor,
)
from vllm_mindspore.device.kernel_library import KernelLibraryError
from vllm_mindspore.device.rank_group import RankGroup

SLOT = 512 << 10  # bytes: kSlotBytes
# Of a rank that has ended: a sleeper looks ten times a second.
NOTICED_SECONDS = 3.0
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])


def part(rank: int, shape: tuple[int, ...], dtype: str) -> Tensor:
    """What a rank gives, of magnitudes at which sums round."""
    rng = np.random.default_rng(rank)
    return tensor(rng.standard_normal(shape) * 10.0 ** rng.integers(-2, 3, shape), dtype)


def all_reduce(x: Tensor, y: Tensor) -> None:
    native = Native(native_path())
    if native.functions.vmo_all_reduce(ctypes.byref(x.view()), ctypes.byref(y.view())):
        raise KernelLibraryError(native.control.last_error())


def expected_sum(count: int, shape: tuple[int, ...], dtype: str) -> Tensor:
    """In float32, in the order of the ranks, rounded once."""
    total = part(0, shape, dtype).wide().astype(np.float32)
    for rank in range(1, count):
        total = total + part(rank, shape, dtype).wide().astype(np.float32)
    return tensor(total, dtype)


@each_dtype
@pytest.mark.parametrize("count", [2, 3])
def test_sums_have_the_same_bits_on_all_ranks(count: int, dtype: str) -> None:
    """Also of nothing, of what is longer than a slot, and in place."""
    shapes = [(1,), (0,), (5, 7), (64,), (300, 1001)]

    def body(group: RankGroup) -> list[Any]:
        found = []
        for shape in shapes:
            x, y = part(group.index, shape, dtype), empty(shape, dtype)
            all_reduce(x, y)
            all_reduce(x, x)
            found.append((y.array, x.array))
        return found

    assert np.prod(shapes[-1]) * 2 > SLOT
    for found in ranks.run(count, body):
        for shape, both in zip(shapes, found, strict=True):
            for sums in both:
                np.testing.assert_array_equal(
                    sums, expected_sum(count, shape, dtype).array, strict=True
                )


def test_more_ranks_than_cores() -> None:
    """Every rank waits for all others a thousand times: sleeping, not spinning."""
    count = len(os.sched_getaffinity(0)) + 2

    def body(group: RankGroup) -> float:
        values = np.zeros(16, np.float32)
        for _ in range(1000):
            values[...] = group.index
            group.all_reduce(values)
        return float(values[0])

    start = time.monotonic()
    assert ranks.run(count, body) == [count * (count - 1) / 2] * count
    assert time.monotonic() - start < ranks.TIMEOUT


def refused(group: RankGroup, values: np.ndarray) -> tuple[str, float]:
    """The error of an exchange, and after how many seconds."""
    start = time.monotonic()
    try:
        while True:
            group.all_reduce(values)
    except KernelLibraryError as error:
        return str(error), time.monotonic() - start


def test_a_killed_rank_is_named_within_seconds() -> None:
    def body(group: RankGroup) -> tuple[str, float]:
        values = np.zeros(16, np.float32)
        group.all_reduce(values)
        if group.index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return refused(group, values)

    first, killed, third = ranks.run(3, body)
    assert killed is None
    for text, seconds in (first, third):
        assert "rank 1 (process " in text
        assert text.endswith("has ended")
        assert seconds < NOTICED_SECONDS


def test_a_rank_that_fails_says_why() -> None:
    def body(group: RankGroup) -> tuple[str, float]:
        if group.index == 0:
            group.stop("its disk is full")
            time.sleep(1)
            return "", 0.0
        return refused(group, np.zeros(16, np.float32))

    _, (text, seconds) = ranks.run(2, body)
    assert text == "all_reduce: rank 0 has stopped: its disk is full"
    assert seconds < NOTICED_SECONDS


def test_a_rank_that_leaves_is_not_waited_for() -> None:
    def body(group: RankGroup) -> str:
        if group.index == 1:
            group.leave()
            time.sleep(1)
            return ""
        return refused(group, np.zeros(16, np.float32))[0]

    assert ranks.run(2, body)[0] == "all_reduce: rank 1 has stopped: it left the group"


def test_a_silent_rank_is_given_up() -> None:
    def body(group: RankGroup) -> str:
        if group.index == 1:
            time.sleep(2)
            return ""
        group.set_patience(0.3)
        return refused(group, np.zeros(16, np.float32))[0]

    text = ranks.run(2, body)[0]
    assert "rank 1 (process " in text
    assert "has not answered for 0 s" in text


def test_ranks_that_do_different_things_notice() -> None:
    def body(group: RankGroup) -> str:
        try:
            group.all_reduce(np.zeros(16 + group.index, np.float32))
        except KernelLibraryError as error:
            return str(error)
        return ""

    texts = ranks.run(2, body)
    assert "rank 1 sends 68 bytes" in texts[0]
    assert "rank 1 expects 68" in texts[1]
    assert all("out of step" in text for text in texts)


def test_nothing_with_a_name_is_made() -> None:
    before = set(Path("/dev/shm").iterdir())

    def body(group: RankGroup) -> Any:
        group.all_reduce(np.zeros(16, np.float32))
        descriptors = [
            os.readlink(f"/proc/self/fd/{fd}")
            for fd in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{fd}")
        ]
        return set(Path("/dev/shm").iterdir()) - before, descriptors

    for made, descriptors in ranks.run(2, body):
        assert not made
        assert not [name for name in descriptors if "vllm_mindspore_ranks" in name]


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (tensor([1, 2], "int32"), tensor([1, 2], "int32"), "float32, float16 or bfloat16"),
        (tensor([1, 2], "float32"), tensor([1, 2], "float16"), "float16"),
        (tensor([1, 2], "float32"), tensor([1], "float32"), "2 elements"),
    ],
)
def test_wrong_arguments_are_refused(library: Native, x: Tensor, y: Tensor, expected: str) -> None:
    assert library.functions.vmo_all_reduce(ctypes.byref(x.view()), ctypes.byref(y.view()))
    assert expected in library.control.last_error()


def test_one_rank_alone_copies(library: Native) -> None:
    x, y = part(0, (3, 4), "bfloat16"), empty((3, 4), "bfloat16")
    assert not library.functions.vmo_all_reduce(ctypes.byref(x.view()), ctypes.byref(y.view()))
    np.testing.assert_array_equal(y.array, x.array)
    assert library.functions.vmo_all_reduce(None, ctypes.byref(TensorView()))
    assert "null pointer" in library.control.last_error()


@each_dtype
@pytest.mark.parametrize("tokens", [1, 9, 5000])
def test_halves_of_a_layer_are_added_up(dtype: str, tokens: int) -> None:
    """A feed-forward block divided between two ranks: 5000 tokens are more than a slot holds."""
    hidden, inner = 40, 24
    rng = np.random.default_rng(1)
    gamma = tensor(rng.uniform(0.5, 1.5, hidden), dtype)
    gate, up = (tensor(rng.standard_normal((inner, hidden)) / 6, dtype) for _ in range(2))
    down = tensor(rng.standard_normal((hidden, inner)) / 5, dtype)
    x, residual = (tensor(rng.standard_normal((tokens, hidden)), dtype) for _ in range(2))
    epsilon = tensor([1e-5], "float32")

    def mlp(*weights: Tensor) -> Tensor:
        y, summed = empty((tokens, hidden), dtype), empty((tokens, hidden), dtype)
        inputs = [x, residual, gamma, *weights, epsilon]
        Native(native_path()).call("mlp_sublayer", [*inputs, y, summed], len(inputs))
        return y

    def cut(weight: Tensor, index: int, axis: int) -> Tensor:
        piece = np.ascontiguousarray(np.split(weight.array, 2, axis)[index])
        return Tensor(piece, dtype)

    def body(group: RankGroup) -> Any:
        index = group.index
        return mlp(cut(gate, index, 0), cut(up, index, 0), cut(down, index, 1)).array

    first, second = (Tensor(found, dtype) for found in ranks.run(2, body))
    np.testing.assert_array_equal(first.array, second.array)
    whole = mlp(gate, up, down).wide()
    tolerance = {"float32": 1e-6, "float16": 4e-3, "bfloat16": 3e-2}[dtype]
    error = np.abs(first.wide() - whole).max() / np.abs(whole).max()
    assert error < tolerance
