# SPDX-License-Identifier: Apache-2.0
"""Groups of linear layers; that the cells have the same: test_calibration_layer.py."""

from __future__ import annotations

import re

import pytest

from vllm_mindspore.quantization.ptq.float_checkpoint import FloatCheckpoint
from vllm_mindspore.quantization.ptq.structure import all_groups, contains, layer_groups, matches


def test_groups_of_a_layer(tiny: FloatCheckpoint) -> None:
    qkv, output, gate_up, down = layer_groups(tiny.config, 2)
    assert qkv.parts() == [
        ("model.layers.2.self_attn.q_proj", 256),
        ("model.layers.2.self_attn.k_proj", 64),
        ("model.layers.2.self_attn.v_proj", 64),
    ]
    assert qkv.norm == "model.layers.2.input_layernorm.weight"
    assert output.rows is not None
    assert (output.rows.count, output.rows.head_dim, output.rows.repeats) == (64, 32, 4)
    assert [size for _, size in gate_up.parts()] == [768, 768]
    assert (down.in_features, down.rows and down.rows.name) == (768, "model.layers.2.mlp.up_proj")


def test_all_groups_and_the_head(tiny: FloatCheckpoint) -> None:
    assert len(all_groups(tiny.config, head=False)) == 16
    assert all_groups(tiny.config, head=True)[-1].parts() == [("lm_head", 2048)]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        (r".*\.w2.*", True),
        (r".*down_proj", True),
        (r"model\.layers\.1\..*", True),
        (r"down_proj", False),
        (r".*\.w1", False),
    ],
)
def test_patterns_match_from_the_start_by_both_names(pattern: str, found: bool) -> None:
    assert matches(re.compile(pattern), "model.layers.1.mlp.down_proj") is found


def test_parts_of_names() -> None:
    assert contains("w2", "model.layers.1.mlp.down_proj")
    assert contains("layers.1.", "model.layers.1.mlp.down_proj")
    assert not contains("lm_head", "model.layers.1.mlp.down_proj")
    assert contains("lm_head", "lm_head")
