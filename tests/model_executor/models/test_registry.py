# SPDX-License-Identifier: Apache-2.0
"""Every architecture name leads to its model, and every model is tested end to end."""

from __future__ import annotations

import pytest
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.e2e.checkpoints import SPECS
from vllm_mindspore.model_executor.models.registry import (
    ARCHITECTURES,
    resolve,
    supported_architectures,
)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_file_is_named_after_the_model_type(name: str) -> None:
    model_type = resolve([name]).__module__.rpartition(".")[2]
    assert MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type] == name


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_architecture_has_its_own_class(name: str) -> None:
    others = [other for other in ARCHITECTURES if other != name]
    assert resolve([name]) not in [resolve([other]) for other in others]


def test_the_first_supported_name_counts() -> None:
    llama = resolve(["LlamaForCausalLM"])
    assert resolve(["NoSuchModel", "LlamaForCausalLM", "Qwen3ForCausalLM"]) is llama


@pytest.mark.parametrize("names", [[], ["NoSuchModel"]])
def test_an_unknown_name_lists_the_known_ones(names: list[str]) -> None:
    with pytest.raises(ValueError, match="not supported by the Native backend") as error:
        resolve(names)
    assert str(names) in str(error.value)
    assert ", ".join(supported_architectures()) in str(error.value)


def test_names_are_listed_in_order() -> None:
    assert supported_architectures() == sorted(ARCHITECTURES)


def test_every_architecture_has_an_end_to_end_checkpoint() -> None:
    written = {AutoModelForCausalLM._model_mapping[s.config_class].__name__ for s in SPECS.values()}
    assert set(ARCHITECTURES) <= written
