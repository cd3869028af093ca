# SPDX-License-Identifier: Apache-2.0
"""Writes results into the marked sections of docs/performance.md."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"


def write_section(name: str, text: str, page: Path = PAGE) -> None:
    """Replaces what stands between the markers of section `name`.

    Raises SystemExit naming the markers when the page has no such section.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found_begin, rest = page.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise SystemExit(f"{page} has no section between {begin} and {end}")
    page.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}")
