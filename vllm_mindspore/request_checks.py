# SPDX-License-Identifier: Apache-2.0
"""What of a request must not reach the engine or the libraries before it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from vllm.exceptions import VLLMValidationError

if TYPE_CHECKING:
    from vllm.pooling_params import PoolingParams
    from vllm.sampling_params import SamplingParams, StructuredOutputsParams

# What MessagePack, the format of vLLM's messages, has for integers.
_INTEGERS = range(-(1 << 63), 1 << 64)
# Beyond what a request can hold; the library of this backend writes each element down, and
# exhausts memory or stack.
_MOST_ELEMENTS = 100_000
_CONTAINERS = (Mapping, list, tuple, set, frozenset)


def check_values(params: SamplingParams | PoolingParams) -> None:
    """Texts must be Unicode and integers of at most 64 bits, at any depth.

    JSON may escape half of a surrogate pair, which is no character and has no UTF-8.

    Raises:
        VLLMValidationError: one is not; names the parameter. vLLM answers it with status 400.
    """
    for place, value in _fields(params):
        _check(place, value)


def _fields(record: Any) -> Iterator[tuple[str, Any]]:
    """Name and value of what a record of vLLM's holds, records within as `outer.inner`."""
    names = getattr(record, "__struct_fields__", None) or [
        field.name for field in dataclasses.fields(record)
    ]
    for name in names:
        value = getattr(record, name)
        if dataclasses.is_dataclass(value) or hasattr(value, "__struct_fields__"):
            for inner, inner_value in _fields(value):
                yield f"{name}.{inner}", inner_value
        else:
            yield name, value


def _check(place: str, value: Any) -> None:
    if isinstance(value, str):
        _check_text(place, value)
    elif isinstance(value, int):
        if value not in _INTEGERS:
            raise VLLMValidationError(
                f"{place}: expected an integer of at most 64 bits; send a smaller one"
            )
    elif isinstance(value, _CONTAINERS):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            _check(f"a key of {place}", key)
            _check(f"{place}[{key!r:.40}]", item)


def _check_text(place: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise VLLMValidationError(
            f"{place}: expected Unicode text, found the surrogate {text[error.start]!a} alone at "
            f"character {error.start}; send both halves of the pair, or the character itself"
        ) from None


def check_schemas(structured: StructuredOutputsParams) -> None:
    """Bound the lists of elements that its JSON schemas ask for.

    Raises:
        VLLMValidationError: one may or must have more elements than a request can hold.
    """
    for schema in (structured.json, structured.structural_tag):
        try:
            _check_lengths(json.loads(schema) if isinstance(schema, str) else schema)
        except json.JSONDecodeError:
            continue  # vLLM says what is wrong with it


def _check_lengths(schema: Any) -> None:
    if not isinstance(schema, dict | list):
        return
    for item in schema.values() if isinstance(schema, dict) else schema:
        _check_lengths(item)
    for name in ("minItems", "maxItems"):
        length = schema.get(name) if isinstance(schema, dict) else None
        if isinstance(length, int | float) and length > _MOST_ELEMENTS:
            raise VLLMValidationError(
                f"structured_outputs: {name}={length:g} in the JSON schema; expected at most "
                f"{_MOST_ELEMENTS} beside what else this schema asks for"
            )
