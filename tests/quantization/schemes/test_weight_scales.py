# SPDX-License-Identifier: Apache-2.0
"""Scales and offsets of groups, in either tool's shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.quantization.schemes.folders import Stored, have, source, values
from vllm_mindspore.quantization.description import GROUP_SIZES
from vllm_mindspore.quantization.schemes import weight_scales
from vllm_mindspore.quantization.schemes.base import Projections
from vllm_mindspore.quantization.schemes.weight_scales import Form, WeightScales

pytestmark = pytest.mark.usefixtures("mindspore_runtime")
INNER, SIZE = 256, 6
each_form = pytest.mark.parametrize("turned", [True, False])


def layer(rng: np.random.Generator, groups: int, *, turned: bool, offset: bool = False) -> Stored:
    shape = (groups, SIZE) if turned else (SIZE, groups)
    parts = {"weight_scale": torch.from_numpy(rng.uniform(0.1, 1, shape)).bfloat16()}
    low = -3 if offset else 0
    offsets = torch.from_numpy(rng.integers(low, 1, shape))
    parts["weight_offset"] = offsets.to(torch.int32 if turned else torch.bfloat16)
    return parts


def read(
    folder: Path, layers: dict[str, Stored], *, turned: bool, sizes: tuple[int, ...] = GROUP_SIZES
) -> WeightScales:
    opened = source(folder, layers, torch.bfloat16)
    asked = Projections(tuple(layers), INNER, (SIZE,) * len(layers))
    found = weight_scales.read(opened, asked, Form(sizes, turned))
    opened.finish()
    return found


def test_shapes_of_a_weight() -> None:
    expected = {(6,): 1, (6, 1): 1, (4, 6): 4, (2, 6): 2, (1, 6): 1}
    assert Form(GROUP_SIZES, turned=True).shapes(256, 6) == expected
    expected = {(6,): 1, (6, 1): 1, (6, 3): 3}
    assert Form(GROUP_SIZES, turned=False).shapes(192, 6) == expected
    assert Form(GROUP_SIZES, turned=False).shapes(96, 6) == {(6,): 1, (6, 1): 1}


@each_form
@pytest.mark.parametrize("groups", [2, 4])
def test_groups(tmp_path: Path, turned: bool, groups: int, rng: np.random.Generator) -> None:
    layers = {name: layer(rng, groups, turned=turned) for name in "qk"}
    found = read(tmp_path, layers, turned=turned)
    scales = [parts["weight_scale"].float() for parts in layers.values()]
    assert have(found.scales, [scale.T if turned else scale for scale in scales])
    assert (found.group_size, found.offsets) == (INNER // groups, ())


@each_form
def test_one_group_is_a_scale_for_each_output(
    tmp_path: Path, turned: bool, rng: np.random.Generator
) -> None:
    layers = {"q": layer(rng, 1, turned=turned)}
    found = read(tmp_path, layers, turned=turned)
    assert found.group_size == 0
    assert torch.equal(values(found.scales), layers["q"]["weight_scale"].float().reshape(-1))


def test_offsets_may_be_what_codes_have(tmp_path: Path, rng: np.random.Generator) -> None:
    layers = {"q": layer(rng, 4, turned=False, offset=True)}
    opened = source(tmp_path, layers, torch.bfloat16)
    form = Form(GROUP_SIZES, turned=False, subtracted=True)
    found = weight_scales.read(opened, Projections(("q",), INNER, (SIZE,)), form)
    assert torch.equal(values(found.offsets), -layers["q"]["weight_offset"].float())


@each_form
@pytest.mark.parametrize("groups", [1, 4])
def test_offsets_of_one_layer_are_for_all(
    tmp_path: Path, turned: bool, groups: int, rng: np.random.Generator
) -> None:
    """Layers that are computed together: the others have zeros, stored or not."""
    layers = {
        name: layer(rng, groups, turned=turned, offset=name == "q") for name in ("q", "k", "v")
    }
    layers["v"].pop("weight_offset")
    found = read(tmp_path, layers, turned=turned)
    offset = layers["q"]["weight_offset"].float()
    assert offset.any()
    wanted = offset.reshape(-1) if groups == 1 else offset.T if turned else offset
    zeros = torch.zeros_like(wanted)
    assert have(found.offsets, [wanted, zeros, zeros])


def test_groups_of_one_input_have_one_size(tmp_path: Path, rng: np.random.Generator) -> None:
    layers = {name: layer(rng, groups, turned=True) for name, groups in (("q", 4), ("k", 2))}
    with pytest.raises(ValueError, match=r"groups of different sizes \(q: 64, k: 128\)"):
        read(tmp_path, layers, turned=True)


def test_the_description_may_fix_the_size(tmp_path: Path, rng: np.random.Generator) -> None:
    layers = {"q": layer(rng, 4, turned=True)}
    with pytest.raises(ValueError, match=r"expected shape .*\[2, 6\], found \[4, 6\]"):
        read(tmp_path, layers, turned=True, sizes=(128,))
