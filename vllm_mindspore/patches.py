# SPDX-License-Identifier: Apache-2.0
"""What we change in other packages: one record per change, the only place that assigns to them.

Each record says why it exists and when it goes. `tests/test_patches.py` fails for a record that is
no longer needed. The aim is an empty list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

Function = Callable[..., Any]


@dataclass(frozen=True)
class Patch:
    """One function of another package, replaced while the original misbehaves.

    Attributes:
        target: "module:attribute".
        why: symptom and cause.
        upstream: link to the report, or "none".
        retire_when: the condition under which the record is deleted.
        replacement: what takes the place of the original.
        misbehaves: tells, given the original, whether it still needs replacing.
    """

    target: str
    why: str
    upstream: str
    retire_when: str
    replacement: Function
    misbehaves: Callable[[Function], bool]

    def original(self) -> Function:
        """The function as its package defines it, applied patch or not."""
        current = self._current()
        return current if current is not self.replacement else _ORIGINALS[self.target]

    def needed(self) -> bool:
        """Whether the original still misbehaves on this machine."""
        return self.misbehaves(self.original())

    def applied(self) -> bool:
        """Whether the replacement is in place."""
        return self._current() is self.replacement

    def apply(self) -> None:
        """Put the replacement in place if it is needed. Idempotent."""
        if self.applied() or not self.needed():
            return
        module, name = self.target.split(":")
        _ORIGINALS[self.target] = self._current()
        setattr(import_module(module), name, self.replacement)

    def _current(self) -> Function:
        module, name = self.target.split(":")
        function: Function = getattr(import_module(module), name)
        return function


_ORIGINALS: dict[str, Function] = {}


def _raises_without_accelerator(function: Function) -> bool:
    if torch.accelerator.is_available():
        return False  # calling it would start the accelerator's runtime before a fork
    try:
        function()
    except RuntimeError:
        return True
    return False


def _accelerator_patch(name: str) -> Patch:
    def nothing_to_do(*_args: object, **_kwargs: object) -> None:
        return None

    return Patch(
        target=f"torch.accelerator:{name}",
        why="vLLM calls it on every platform that is not its own CPU platform (shutdown, cleanup); "
        "on a machine where torch has no accelerator torch raises RuntimeError.",
        # Solved there for vLLM's own CPU platform only.
        upstream="https://github.com/vllm-project/vllm/issues/41660",
        retire_when="vLLM asks the platform, or torch makes the call a no-op without accelerator",
        replacement=nothing_to_do,
        misbehaves=_raises_without_accelerator,
    )


PATCHES: tuple[Patch, ...] = tuple(
    _accelerator_patch(name) for name in ("empty_cache", "empty_host_cache", "synchronize")
)


def apply_all() -> None:
    """Apply every record that is still needed. Idempotent."""
    for patch in PATCHES:
        patch.apply()
