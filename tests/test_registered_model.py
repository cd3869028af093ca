# SPDX-License-Identifier: Apache-2.0
"""Our architectures answer vLLM's questions without being imported."""

from __future__ import annotations

from dataclasses import fields

import pytest
from vllm.model_executor.models.registry import _ModelInfo

from vllm_mindspore.model_executor.models.registry import ARCHITECTURES
from vllm_mindspore.registered_model import _DECODER_FACTS, registered_models


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_is_described_as_a_decoder(name: str) -> None:
    info = registered_models()[name].inspect_model_cls()
    assert info.architecture == name
    assert info.is_text_generation_model
    assert info.attn_type == "decoder"
    assert not info.supports_multimodal
    assert not info.is_hybrid


def test_every_field_of_vllm_is_filled() -> None:
    (info, *_) = [model.inspect_model_cls() for model in registered_models().values()]
    assert all(getattr(info, field.name) is not None for field in fields(_ModelInfo))


def test_stated_facts_are_fields_of_vllm() -> None:
    assert set(_DECODER_FACTS) <= {field.name for field in fields(_ModelInfo)}
