# SPDX-License-Identifier: Apache-2.0
"""The scales of an int8 cache as ModelSlim stores them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.quantization.schemes.folders import Stored, source
from vllm_mindspore.bridge import to_torch
from vllm_mindspore.quantization.schemes import int8_cache

pytestmark = pytest.mark.usefixtures("mindspore_runtime")
CHANNELS = 6
ATTENTION = "model.layers.0.self_attn"


def layers() -> dict[str, Stored]:
    keys = {"kv_cache_scale": torch.linspace(0.01, 0.06, CHANNELS)}
    keys["kv_cache_offset"] = torch.arange(CHANNELS, dtype=torch.float32) - 3
    values = {"kv_cache_scale": torch.linspace(1, 2, CHANNELS)}
    values["kv_cache_offset"] = torch.zeros(CHANNELS)
    return {f"{ATTENTION}.k_proj": keys, f"{ATTENTION}.v_proj": values}


def load(folder: Path, stored: dict[str, Stored]) -> torch.Tensor:
    opened = source(folder, stored, torch.bfloat16)
    found = int8_cache.scales(opened, ATTENTION, CHANNELS)
    opened.finish()
    return to_torch(found)


def test_rows_are_in_the_order_of_the_kernels(tmp_path: Path) -> None:
    found = load(tmp_path, layers())
    expected = [tensor for parts in layers().values() for tensor in parts.values()]
    assert torch.equal(found, torch.stack(expected))


@pytest.mark.parametrize("shape", [(CHANNELS, 1), (1, CHANNELS)])
def test_other_shapes_and_dtypes(tmp_path: Path, shape: tuple[int, int]) -> None:
    stored = layers()
    for parts in stored.values():
        parts["kv_cache_offset"] = parts["kv_cache_offset"].to(torch.int8)
        for part in parts:
            parts[part] = parts[part].reshape(shape)
    expected = load(tmp_path, stored)
    assert torch.equal(expected[1], torch.arange(CHANNELS) - 3.0)
    halves = {
        name: {part: tensor.to(torch.bfloat16) for part, tensor in parts.items()}
        for name, parts in stored.items()
    }
    assert torch.equal(load(tmp_path, halves), expected.bfloat16().float())


def test_one_number_is_that_of_all_channels(tmp_path: Path) -> None:
    stored = layers()
    stored[f"{ATTENTION}.v_proj"] = {
        "kv_cache_scale": torch.tensor([0.5]),
        "kv_cache_offset": torch.tensor([2.0]),
    }
    found = load(tmp_path, stored)
    assert torch.equal(found[2:], torch.tensor([[0.5], [2.0]]).expand(2, CHANNELS))


@pytest.mark.parametrize(
    ("projection", "part", "tensor", "message"),
    [
        ("k_proj", "kv_cache_scale", torch.zeros(CHANNELS), "above 0, found 6 others of 6"),
        ("v_proj", "kv_cache_scale", -torch.ones(1), "expected finite numbers above 0, found 6"),
        (
            "k_proj",
            "kv_cache_offset",
            torch.zeros(CHANNELS + 1),
            r"expected shape \[6\].*found \[7",
        ),
        ("v_proj", "kv_cache_offset", None, "missing tensor .*v_proj.kv_cache_offset"),
        ("v_proj", "kv_cache_scale", None, "missing tensor .*v_proj.kv_cache_scale"),
        ("k_proj", "kv_cache_scale", torch.ones(CHANNELS, dtype=torch.int64), "expected dtype"),
        ("k_proj", "kv_cache_offset", torch.full((CHANNELS,), torch.nan), "expected finite numb"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, projection: str, part: str, tensor: torch.Tensor | None, message: str
) -> None:
    stored = layers()
    name = f"{ATTENTION}.{projection}"
    del stored[name][part]
    if tensor is not None:
        stored[name][part] = tensor
    with pytest.raises(ValueError, match=message) as refusal:
        load(tmp_path, stored)
    assert f"{name}.{part}" in str(refusal.value)
