# SPDX-License-Identifier: Apache-2.0
"""Weights that are NaN or infinite, files that change while they are loaded, and configurations
that ask for absurdly much: one error, no crash, no long work before it."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.hostile.files import SINGLE, right_file
from vllm_mindspore.model_executor.model_loader.safetensors import SafetensorsSource
from vllm_mindspore.model_executor.model_loader.source import DummySource

DTYPES = [torch.bfloat16, torch.float16, torch.float32]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 255, 1000, 100_003])
def test_one_bad_number_anywhere_is_found(
    value: float, dtype: torch.dtype, length: int, tmp_path: Path
) -> None:
    for position in {0, length // 2, length - 1}:
        weights = {"good": torch.ones(3, dtype=dtype), "bad": torch.zeros(length, dtype=dtype)}
        weights["bad"][position] = value
        save_file(weights, tmp_path / SINGLE)
        source = SafetensorsSource(tmp_path, dtype)
        for name, tensor in weights.items():
            source.take(name, tensor.shape)
        with pytest.raises(ValueError, match=f"tensor bad in {SINGLE}: expected finite") as error:
            source.finish()
        text = str(error.value)
        assert f"found 1 NaN or Inf among {length} (stored as" in text
        assert str(tmp_path) in text
        assert "good" not in text


def test_the_largest_numbers_are_finite(tmp_path: Path) -> None:
    for dtype in DTYPES:
        ends = [torch.finfo(dtype).max, torch.finfo(dtype).min, torch.finfo(dtype).tiny]
        save_file({"w": torch.tensor(ends, dtype=dtype)}, tmp_path / SINGLE)
        source = SafetensorsSource(tmp_path, dtype)
        source.take("w", (3,))
        source.finish()


def test_a_number_too_large_for_the_dtype_is_an_error(tmp_path: Path) -> None:
    save_file({"w": torch.tensor([1.0, 70000.0], dtype=torch.bfloat16)}, tmp_path / SINGLE)
    source = SafetensorsSource(tmp_path, torch.float16)
    source.take("w", (2,))
    with pytest.raises(ValueError, match=r"stored as BF16, used as torch.float16.\n.+--dtype"):
        source.finish()


def test_every_bad_tensor_is_counted(tmp_path: Path) -> None:
    weights = {f"w{index:02}": torch.full((4,), float("nan")) for index in range(30)}
    save_file(weights, tmp_path / SINGLE)
    source = SafetensorsSource(tmp_path, torch.float32)
    for name in weights:
        source.take(name, (4,))
    with pytest.raises(ValueError, match=r"found 4 NaN or Inf among 4[\s\S]+and 10 more"):
        source.finish()


def _truncate(file: Path) -> None:
    # The data stays whole: to look at the file must be enough.
    os.truncate(file, file.stat().st_size + 1)


def _touch(file: Path) -> None:
    os.utime(file, ns=(1, 1))


def _replace(file: Path) -> None:
    other = file.with_suffix(".part")
    other.write_bytes(right_file())
    other.replace(file)


@pytest.mark.parametrize("change", [_truncate, _touch, _replace, Path.unlink])
def test_a_file_that_changes_while_it_is_loaded_is_named(change: object, tmp_path: Path) -> None:
    (tmp_path / SINGLE).write_bytes(right_file())
    source = SafetensorsSource(tmp_path, torch.float32)
    parameter = source.take("a.weight", (3, 4))
    source.take("b.weight", (2, 4))
    change(tmp_path / SINGLE)  # type: ignore[operator]
    with pytest.raises(ValueError, match=f"{SINGLE} was changed while it was loaded"):
        source.finish()
    assert parameter.asnumpy().flatten().tolist() == list(range(12))


@pytest.mark.parametrize("size", [-1, 1 << 40, 1 << 62, 1 << 63, 1 << 100])
def test_an_absurd_size_is_reported_and_nothing_is_allocated(size: int, tmp_path: Path) -> None:
    (tmp_path / SINGLE).write_bytes(right_file())
    source = SafetensorsSource(tmp_path, torch.float32)
    with pytest.raises(ValueError, match=rf"expected shape \[{size}, 4\], found \[3, 4\]"):
        source.take("a.weight", (size, 4))


def test_the_memory_in_place_of_missing_weights_is_bounded(tmp_path: Path) -> None:
    (tmp_path / SINGLE).write_bytes(right_file())
    source = SafetensorsSource(tmp_path, torch.float32)
    begin = time.monotonic()
    names = [str(index) for index in range(1000)]  # of 100 MB each
    with pytest.raises(ValueError, match=r"missing tensor 0: expected shape \[1024, 25000\]"):
        source.take_merged(names, [(1024, 25_000)] * len(names))
    assert time.monotonic() - begin < 20


def test_a_billion_layers_are_not_followed_to_the_end(tmp_path: Path) -> None:
    (tmp_path / SINGLE).write_bytes(right_file())
    source = SafetensorsSource(tmp_path, torch.float32)
    names = (f"layers.{index}" for index in range(10**9))
    with pytest.raises(ValueError, match=r"missing tensor layers.0[\s\S]+and 980 more"):
        deque((source.take(name, (4,)) for name in names), maxlen=1)


def test_dummy_weights_of_absurd_size_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"tensor embed: no memory for shape \[4611686018427387904"
    ):
        DummySource(torch.float32).take("embed", (1 << 62, 64))
