# SPDX-License-Identifier: Apache-2.0
"""vLLM knows the names users give; they ask nothing of machine, dtype or folder."""

from __future__ import annotations

import pytest
import torch
from vllm.model_executor.layers.quantization import get_quantization_config
from vllm.plugins import load_general_plugins

from vllm_mindspore.quantization.description import TOOLS
from vllm_mindspore.quantization.vllm_names import AscendQuantization, FileQuantization


@pytest.mark.parametrize("name", TOOLS)
def test_vllm_knows_every_name(name: str) -> None:
    load_general_plugins()  # as vLLM does before it reads a configuration
    assert issubclass(get_quantization_config(name), AscendQuantization)


def test_the_class_of_compressed_tensors_is_ours() -> None:
    """vLLM's own would build torch layers, and has other checks."""
    load_general_plugins()
    assert get_quantization_config("compressed-tensors") is FileQuantization


@pytest.mark.parametrize(
    ("stated", "asked", "found"),
    [
        ("ascend", None, None),
        ("ascend", "ascend", None),
        ("ascend", "smoothquant", "smoothquant"),
        ("golden-stick", "golden_stick", "golden_stick"),
        ("fp8", "awq", None),  # none is ours: vLLM's own message
    ],
)
def test_names_that_stand_for_the_one_in_config_json(
    stated: str, asked: str | None, found: str | None
) -> None:
    override = AscendQuantization.override_quantization_method
    assert override({"quant_method": stated}, asked) == found


@pytest.mark.parametrize(
    ("stated", "asked"),
    [
        ("ascend", "golden-stick"),
        ("compressed-tensors", "ascend"),
        ("fp8", "ascend"),
        ("golden-stick", "compressed-tensors"),
    ],
)
def test_names_that_contradict_config_json(stated: str, asked: str) -> None:
    message = f"quantization='{asked}', but .* quant_method '{stated}'. Drop --quantization"
    with pytest.raises(ValueError, match=message):
        AscendQuantization.override_quantization_method({"quant_method": stated}, asked)


def test_it_asks_nothing_of_the_machine_or_the_folder() -> None:
    config = AscendQuantization.from_config({"quant_method": "golden-stick"})
    assert config.get_min_capability() == -1
    assert config.get_config_filenames() == []
    assert set(config.get_supported_act_dtypes()) == {torch.float32, torch.bfloat16, torch.float16}
    assert config.get_name() == "files"
