# SPDX-License-Identifier: Apache-2.0
"""Layouts are what transformers writes, for every kind of checkpoint that models are tested with
(`e2e/test_correctness.py` loads them, strict about missing and extra tensors)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig

from tests.e2e.checkpoints import SPECS, write_checkpoint
from vllm_mindspore.model_executor.models.config import decoder_config
from vllm_mindspore.model_executor.models.layout import UNUSED, Layout, layout_of


def tensors_of(layout: Layout) -> dict[str, tuple[int, ...]]:
    found = dict(layout.floats)
    for together in layout.linears:
        assert len({linear.in_features for linear in together}) == 1
        for linear in together:
            found[f"{linear.name}.weight"] = (linear.out_features, linear.in_features)
            if linear.bias:
                found[f"{linear.name}.bias"] = (linear.out_features,)
    return found


@pytest.mark.parametrize("name", SPECS)
def test_layouts_are_what_transformers_writes(name: str, tmp_path: Path) -> None:
    write_checkpoint(SPECS[name], tmp_path, torch.bfloat16)
    written: dict[str, tuple[int, ...]] = {}
    for file in tmp_path.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            written |= {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
    config = AutoConfig.from_pretrained(tmp_path)
    found = tensors_of(layout_of(config.model_type, decoder_config(config)))
    extra = {key: shape for key, shape in written.items() if key not in found}
    assert found | extra == written
    assert all(key.endswith(UNUSED) for key in extra)
