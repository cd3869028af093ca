# SPDX-License-Identifier: Apache-2.0
"""Values that vLLM's messages cannot carry, and schemas its libraries cannot bear, are named."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from vllm import PoolingParams
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import (
    RepetitionDetectionParams,
    SamplingParams,
    StructuredOutputsParams,
)

from vllm_mindspore.request_checks import check_schemas, check_values

HALF = "\ud800"
FORMAT = {"type": "object"}


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"stop": ["ok", HALF]}, "stop[1]"),
        ({"bad_words": [f"ab{HALF}c"]}, "bad_words[0]"),
        ({"extra_args": {"a": {"b": [HALF]}}}, "extra_args['a']['b'][0]"),
        ({"extra_args": {HALF: 1}}, "a key of extra_args"),
        (
            {"structured_outputs": StructuredOutputsParams(json=FORMAT, whitespace_pattern=HALF)},
            "structured_outputs.whitespace_pattern",
        ),
    ],
)
def test_half_a_surrogate_pair_is_named(options: dict[str, Any], place: str) -> None:
    params = SamplingParams(**options)
    with pytest.raises(UnicodeEncodeError):
        msgspec.msgpack.encode(params)  # what would happen to it
    with pytest.raises(VLLMValidationError, match="expected Unicode text") as error:
        check_values(params)
    assert str(error.value).startswith(f"{place}: ")
    assert "'\\ud800'" in str(error.value)


@pytest.mark.parametrize("value", [1 << 64, -(1 << 63) - 1, pytest.param(10**5000, id="long")])
def test_integer_beyond_64_bits_is_named(value: int) -> None:
    params = SamplingParams()
    params.top_k = value
    with pytest.raises(
        VLLMValidationError, match=r"^top_k: expected an integer of at most 64 bits"
    ):
        check_values(params)


def test_nested_record_is_checked() -> None:
    params = SamplingParams()
    params.repetition_detection = RepetitionDetectionParams(max_pattern_size=1 << 70, min_count=2)
    with pytest.raises(VLLMValidationError, match=r"^repetition_detection.max_pattern_size: "):
        check_values(params)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        PoolingParams(),
        SamplingParams(stop=["\U0001f98a", "ü"], top_k=(1 << 31), logit_bias={3: 1.5}, seed=-1),
        SamplingParams(extra_args={"a": (1 << 64) - 1, "b": [-(1 << 63), True, None, 1.0]}),
    ],
)
def test_what_messages_can_carry_passes(params: SamplingParams | PoolingParams) -> None:
    msgspec.msgpack.encode(params)
    check_values(params)


@pytest.mark.parametrize("name", ["minItems", "maxItems"])
@pytest.mark.parametrize("as_text", [True, False])
def test_lists_of_a_billion_elements_are_refused(name: str, as_text: bool) -> None:
    schema: dict[str, Any] = {"anyOf": [{"type": "object", "properties": {"a": {name: 10**9}}}]}
    params = StructuredOutputsParams(json=json.dumps(schema) if as_text else schema)
    with pytest.raises(VLLMValidationError, match=f"{name}=1e\\+09 in the JSON schema"):
        check_schemas(params)


@pytest.mark.parametrize("schema", [{"maxItems": 1000}, {"maxLength": 10**9}, "{", {}, "[1]"])
def test_other_schemas_pass(schema: Any) -> None:
    structured = StructuredOutputsParams(json=schema)
    check_schemas(structured)
    check_schemas(StructuredOutputsParams(structural_tag=json.dumps({"format": {"a": 1}})))
