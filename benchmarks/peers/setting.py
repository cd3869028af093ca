# SPDX-License-Identifier: Apache-2.0
"""What all parts of a run share: the sides, the checkpoint, the folders and the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.sides import Side

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Machine:
    """Where the run happens.

    Attributes:
        cpu: the processor's name.
        isa: instruction set our kernels use.
        threads: of each side.
        bandwidth: bytes/s of a plain read with those threads.
    """

    cpu: str
    isa: str
    threads: int
    bandwidth: float

    def line(self) -> str:
        """For the page."""
        read = f"read bandwidth {self.bandwidth / 1e9:.1f} GB/s"
        return f"Machine: {self.cpu}, {self.threads} threads, {self.isa} kernels, {read}."


@dataclass(frozen=True)
class Setting:
    """The circumstances of a run; `build` is a folder that git ignores."""

    sides: tuple[Side, Side]
    checkpoint: Path
    build: Path
    machine: Machine

    @property
    def names(self) -> tuple[str, str]:
        """Ours and the peer's."""
        return self.sides[0].name, self.sides[1].name

    def work(self, side: Side) -> Path:
        """Where a side keeps logs and what it compiles, over all runs."""
        folder = self.build / "sides" / side.name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def show(self, number: int, *words: str) -> None:
        """One line of progress; rounds count from zero."""
        print(f"  round {number + 1}:", *words, flush=True)


def read_machine(side: Side, cache: Path) -> Machine:
    """Asks our kernel library, in a process with our side's settings."""
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers.setting"],
        env=side.environment(cache) | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return Machine(**json.loads(result.stdout.splitlines()[-1]))


def _print_machine() -> None:
    from benchmarks.engine import cpu_name
    from vllm_mindspore.device.kernel_library import kernel_library

    library = kernel_library()
    bandwidth = max(library.read_bandwidth(1 << 30) for _ in range(3))
    facts = Machine(cpu_name(), library.isa_name(), library.num_threads(), bandwidth)
    print(json.dumps(facts.__dict__))


if __name__ == "__main__":
    _print_machine()
