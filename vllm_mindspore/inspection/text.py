# SPDX-License-Identifier: Apache-2.0
"""What reports on checkpoints of every kind say with the same words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_SHOWN = 20


def amount(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.3f} GB" if count >= 1e9 else f"{count / 1e6:.3f} MB"


def verdict(problems: Sequence[str]) -> Iterator[str]:
    """Whether the checkpoint can be served; the first problems if it cannot."""
    if not problems:
        yield "No problems found."
        return
    yield f"It cannot be served, {len(problems)} problems:"
    yield from (f"  {problem}" for problem in problems[:_SHOWN])
    if len(problems) > _SHOWN:
        yield f"  ... and {len(problems) - _SHOWN} more (--json shows all)"
