# SPDX-License-Identifier: Apache-2.0
"""JSON of files nobody vouches for: one object in UTF-8, every key once, bounded in depth."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any


def parse_object(data: bytes, place: str) -> dict[str, Any]:
    """The JSON object in `data`; `place` names it in messages.

    Python's parser alone takes the last of two equal keys, NaN, and ends very deep nesting with
    RecursionError. Raises ValueError for these, and for what is no JSON object in UTF-8.
    """
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_refuse_constant
        )
    except RecursionError as error:
        raise ValueError(f"{place}: expected a JSON object, found one nested too deep") from error
    except ValueError as error:  # UnicodeDecodeError, JSONDecodeError, numbers of 4300 digits
        raise ValueError(f"{place}: expected a JSON object in UTF-8, found: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{place}: expected a JSON object, found a {type(value).__name__}")
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        again, count = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {again[:200]!r} {count} times in one object")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name}, which is not JSON")
