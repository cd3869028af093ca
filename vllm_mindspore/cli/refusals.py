# SPDX-License-Identifier: Apache-2.0
"""Which errors a user needs no traceback of: what the checks before a start found wrong."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

_OF_PYDANTIC = ("Value error, ", "Assertion failed, ")


def told(error: ValueError) -> str | None:
    """What is wrong, in one or a few lines: of vLLM's configuration, or by a check of this package.

    None for any other error, whose traceback is wanted, and where VLLM_LOGGING_LEVEL=DEBUG.
    """
    # Here, since most commands end without an error.
    from pydantic import ValidationError
    from vllm import envs

    if envs.VLLM_LOGGING_LEVEL == "DEBUG":
        return None
    if isinstance(error, ValidationError):
        return _of_configuration(error)
    return str(error) if _raised_here(error.__traceback__) else None


def _of_configuration(error: ValidationError) -> str:
    lines = []
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        text = each["msg"]
        for start in _OF_PYDANTIC:
            text = text.removeprefix(start)
        where = ".".join(str(part) for part in each["loc"])
        lines.append(f"{where}: {text}" if where else text)
    return "\n".join(lines)


def _raised_here(trace: TracebackType | None) -> bool:
    """Whether the innermost frame is one of this package."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace else ""
    return module.partition(".")[0] == "vllm_mindspore"
