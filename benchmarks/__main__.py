# SPDX-License-Identifier: Apache-2.0
"""`make bench`: the kernels on their own, then the engine, into docs/performance.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"


def main() -> None:
    """Each benchmark in its own process, one after the other."""
    for module in ("benchmarks.kernels", "benchmarks.engine"):
        subprocess.run([sys.executable, "-m", module, "--write", str(PAGE)], check=True)


if __name__ == "__main__":
    main()
