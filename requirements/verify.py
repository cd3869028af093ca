# SPDX-License-Identifier: Apache-2.0
"""Exit code 0 when this environment holds the verified versions of constraints.txt, else 1."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CONSTRAINTS = Path(__file__).with_name("constraints.txt")


def deviations() -> list[str]:
    """Constraints that are not met; a local version such as +cpu meets its public version."""
    found = []
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        name, separator, wanted = line.partition("==")
        if not separator:
            continue
        try:
            installed = version(name).partition("+")[0]
        except PackageNotFoundError:
            installed = "missing"
        if installed != wanted:
            found.append(f"{name}: {installed}, verified {wanted}")
    return found


if __name__ == "__main__":
    sys.exit(1 if deviations() else 0)
