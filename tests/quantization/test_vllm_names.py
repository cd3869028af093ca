# SPDX-License-Identifier: Apache-2.0
"""vLLM knows the names users give; they ask nothing of machine, dtype or folder."""

from __future__ import annotations

import pytest
import torch
from vllm.model_executor.layers.quantization import get_quantization_config
from vllm.plugins import load_general_plugins

from vllm_mindspore.quantization.description import TOOLS
from vllm_mindspore.quantization.vllm_names import AscendQuantization


@pytest.mark.parametrize("name", TOOLS)
def test_vllm_knows_every_name(name: str) -> None:
    load_general_plugins()  # as vLLM does before it reads a configuration
    assert issubclass(get_quantization_config(name), AscendQuantization)


def test_it_asks_nothing_of_the_machine_or_the_folder() -> None:
    config = AscendQuantization.from_config({"quant_method": "golden-stick"})
    assert config.get_min_capability() == -1
    assert config.get_config_filenames() == []
    assert set(config.get_supported_act_dtypes()) == {torch.float32, torch.bfloat16, torch.float16}
    assert config.get_name() == "ascend"
