# SPDX-License-Identifier: Apache-2.0
"""`make bench`: the engine, then parts of it on their own, into docs/performance.md."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.page import write_section


def main() -> None:
    """Each benchmark in its own process, one after the other."""
    names = (
        *("engine", "quantized", "sparse_engine", "resident"),
        *("packing", "norm_codes", "sampling", "sparse", "kernels"),
    )
    for name in names:
        print(f"benchmark: {name} (a few minutes) ...", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        print(result.stdout)
        text = f"```text\n{result.stdout.strip()}\n```" if name == "kernels" else result.stdout
        write_section(name, text)


if __name__ == "__main__":
    main()
