# SPDX-License-Identifier: Apache-2.0
"""What expected one of outside graphs, between real processes (ops/tests has the kernels)."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ops.tests import ranks
from vllm_mindspore.device.kernel_library import kernel_library
from vllm_mindspore.device.rank_group import RankGroup

SLOT = 512 << 10  # bytes: kSlotBytes in ops/collectives


def part(rank: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(rank).standard_normal(shape).astype(np.float32)


def formed_by(form: Callable[..., RankGroup]) -> list[str]:
    """What two ranks end with whose group `form` makes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RankGroup, "form", form)
        return ranks.run(2, lambda group: None)


def test_parts_stand_one_after_the_other_and_side_by_side() -> None:
    rows, columns = 3, SLOT // 4 // 2 + 5  # rows that pieces cut
    kept = 2 * columns - 7

    def body(group: RankGroup) -> Any:
        own = part(group.index, (rows, columns))
        return group.all_gather(own), group.gather_columns(own, kept)

    whole = [part(rank, (rows, columns)) for rank in range(2)]
    first, second = ranks.run(2, body)
    for gathered, _ in (first, second):
        np.testing.assert_array_equal(gathered, np.concatenate(whole))
    np.testing.assert_array_equal(first[1], np.concatenate(whole, axis=1)[:, :kept])
    assert second[1] is None


def test_rank_0_tells_the_others() -> None:
    def body(group: RankGroup) -> Any:
        values = np.full((2, SLOT // 8 + 3), group.index, np.int64)
        if group.index == 0:
            values[...] = np.arange(values.size).reshape(values.shape)
        group.broadcast(values)
        return values

    for found in ranks.run(3, body):
        np.testing.assert_array_equal(found.reshape(-1), np.arange(found.size))


def test_memory_that_cannot_be_joined_is_an_error_on_every_rank() -> None:
    class Misled:
        """Tells the others of a descriptor that is none."""

        def __init__(self, exchange: Any) -> None:
            self.exchange = exchange

        def all_gather(self, value: Any) -> list[Any]:
            if isinstance(value, tuple):
                value = (value[0], 4321, value[2])
            found: list[Any] = self.exchange.all_gather(value)
            return found

    form = RankGroup.form

    def misled(library: Any, index: int, count: int, exchange: Any) -> RankGroup:
        return form(library, index, count, Misled(exchange))

    for text in formed_by(misled):
        assert "KernelLibraryError" in text
        assert "rank 1 cannot open the memory of rank 0" in text


def test_memory_that_the_system_does_not_give_is_an_error_on_every_rank() -> None:
    form = RankGroup.form

    def limited(library: Any, index: int, count: int, exchange: Any) -> RankGroup:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        return form(library, index, count, exchange)

    for text in formed_by(limited):
        assert re.search(r"KernelLibraryError: group: the system gives no \d+ bytes", text)


def test_a_reason_that_is_cut_is_still_told() -> None:
    """Inside of one of its characters."""

    def body(group: RankGroup) -> None:
        if group.index == 1:
            group.stop("x" + "模" * 200)
        else:
            group.all_reduce(part(0, (2, 3)))

    assert "KernelLibraryError: all_reduce: rank 1 has stopped: x模模" in ranks.run(2, body)[0]


def test_one_rank_exchanges_with_nobody() -> None:
    group = RankGroup.form(kernel_library(), 0, 1, None)  # type: ignore[arg-type]
    values = part(0, (2, 3))
    group.all_reduce(values)
    group.broadcast(values)
    np.testing.assert_array_equal(values, part(0, (2, 3)))
    found = group.gather_columns(values, 2)
    assert found is not None
    np.testing.assert_array_equal(found, values[:, :2])


def test_other_types_are_refused() -> None:
    group = RankGroup.form(kernel_library(), 0, 1, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"float32, float16, .*; found int32"):
        group.all_reduce(np.zeros(3, np.int32))
