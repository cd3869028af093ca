# SPDX-License-Identifier: Apache-2.0
"""Quantization names of the Ascend tools reach our refusal, not vLLM's own list."""

from __future__ import annotations

import pytest
from vllm.model_executor.layers.quantization import get_quantization_config
from vllm.plugins import load_general_plugins

from vllm_mindspore.quantization.unsupported import NAMES, UnsupportedQuantization


@pytest.mark.parametrize("name", NAMES)
def test_vllm_knows_every_name(name: str) -> None:
    load_general_plugins()  # as vLLM does before it reads a configuration
    assert issubclass(get_quantization_config(name), UnsupportedQuantization)


@pytest.mark.parametrize("name", [*NAMES, None])
def test_a_checkpoint_of_that_method_is_refused_by_name(name: str | None) -> None:
    with pytest.raises(ValueError, match=rf"quantization='{name}' is not supported"):
        UnsupportedQuantization.from_config({"quant_method": name})


def test_it_asks_nothing_of_the_machine_or_the_folder() -> None:
    config = UnsupportedQuantization()
    assert config.get_min_capability() == -1
    assert config.get_config_filenames() == []
    assert config.get_supported_act_dtypes() == []
    assert config.get_name() == "unsupported"
