# SPDX-License-Identifier: Apache-2.0
"""Dummy weights are small, repeatable and counted once; problems are reported together."""

from __future__ import annotations

import pytest
import torch

from vllm_mindspore.bridge import to_torch
from vllm_mindspore.model_executor.model_loader import source as source_module
from vllm_mindspore.model_executor.model_loader.source import DummySource, Problems

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dummy_weights_are_small_and_random(dtype: torch.dtype) -> None:
    weight = to_torch(DummySource(dtype).take("a.weight", (64, 32)))
    assert weight.dtype == dtype
    assert weight.shape == (64, 32)
    assert float(weight.abs().max()) <= 1e-3 * 1.01  # 1e-3 rounded to the dtype
    assert 2e-4 < float(weight.float().std()) < 1e-3
    assert abs(float(weight.float().mean())) < 1e-4


def test_dummy_weights_repeat_on_every_run() -> None:
    first, second = (
        to_torch(DummySource(torch.float32).take("a.weight", (5, 7))) for _ in range(2)
    )
    assert torch.equal(first, second)


def test_a_name_gives_the_same_memory_and_counts_once() -> None:
    source = DummySource(torch.bfloat16)
    first, again = (source.take("tied.weight", (6, 4)) for _ in range(2))
    assert first.data_ptr() == again.data_ptr()
    assert source.num_bytes == 6 * 4 * 2
    source.take("other.weight", (3,))
    assert source.num_bytes == 6 * 4 * 2 + 3 * 2


def test_merged_dummy_weights_have_all_rows() -> None:
    source = DummySource(torch.float32)
    merged = source.take_merged(["q.weight", "k.weight"], [(6, 4), (2, 4)])
    assert tuple(merged.shape) == (8, 4)
    assert source.num_bytes == 8 * 4 * 4
    source.finish()


def test_weights_larger_than_the_pattern_are_filled_to_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(source_module, "_DUMMY_PERIOD", 8)
    weight = to_torch(DummySource(torch.float32).take("a.weight", (3, 7))).flatten()
    assert torch.equal(weight[8:16], weight[:8])
    assert torch.equal(weight[16:], weight[:5])


def test_no_problem_is_no_error() -> None:
    Problems("some folder").raise_if_any("advice")


def test_problems_are_raised_together_with_place_and_advice() -> None:
    problems = Problems("some folder")
    problems.add("missing tensor a")
    problems.add("extra tensor b")
    with pytest.raises(ValueError, match="does not fit") as error:
        problems.raise_if_any("do this")
    assert str(error.value) == (
        "some folder does not fit the model:\n  missing tensor a\n  extra tensor b\ndo this"
    )


def test_a_long_list_is_cut_and_counted() -> None:
    problems = Problems("some folder")
    for index in range(23):
        problems.add(f"problem {index}.")
    with pytest.raises(ValueError, match="and 3 more") as error:
        problems.raise_if_any("do this")
    assert "problem 19." in str(error.value)
    assert "problem 20." not in str(error.value)
