# SPDX-License-Identifier: Apache-2.0
"""A decode step of ours and of another program, alternately, in one run.

    python -m benchmarks.against 'COMMAND' --pattern 'batch 1: ([0-9.]+) ms' [--rounds 5]

The other program is any shell command that prints its milliseconds per step for the Qwen3-0.6B
shape; the pattern's first group finds them. Both start anew in every round, so that neither side
has the quieter half of the time. Prints every round, both medians and their ratio.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence

OUR_ROW = r"\| decode step, batch \d+ \| ([0-9.]+) \|"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", help="the other program, a shell command")
    parser.add_argument("--pattern", required=True, help="regular expression, group 1: ms per step")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(arguments)
    ours = [sys.executable, "-m", "benchmarks.engine", "--decode", str(args.batch)]
    rounds = []
    for number in range(1, args.rounds + 1):
        theirs = milliseconds(["sh", "-c", args.command], args.pattern)
        rounds.append((theirs, milliseconds(ours, OUR_ROW)))
        print(f"round {number}: other {theirs:.1f} ms, ours {rounds[-1][1]:.1f} ms", flush=True)
    other, our = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"median: other {other:.1f} ms, ours {our:.1f} ms, ratio {other / our:.2f}")


def milliseconds(command: Sequence[str], pattern: str) -> float:
    """What `command` prints where `pattern` says. SystemExit with its output if it prints none."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found = re.search(pattern, done.stdout)
    if not found:
        sys.exit(f"no '{pattern}' in the output of {' '.join(command)}:\n{done.stdout}")
    return float(found.group(1))


if __name__ == "__main__":
    main()
