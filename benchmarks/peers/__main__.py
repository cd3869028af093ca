# SPDX-License-Identifier: Apache-2.0
"""`make bench-peers`: measures both sides and writes the sections of docs/performance.md.

    python -m benchmarks.peers [--only PART[,PART...]] [--rounds N]

Each part writes its own section and figure, so parts can be run on their own.
"""

from __future__ import annotations

import argparse
import fcntl
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.page import PAGE, write_section
from benchmarks.peers import overhead, quantized, serve, speed, start
from benchmarks.peers.checkpoint import ready_checkpoint
from benchmarks.peers.environment import ready_environment
from benchmarks.peers.report import Part, draw
from benchmarks.peers.setting import ROOT, Setting, read_machine
from benchmarks.peers.sides import both_sides
from benchmarks.shapes import QWEN3_0_6B

BUILD = ROOT / "build" / "peers"
IMAGES = "images"
Measure = Callable[[set[str], int], dict[str, Part]]
"""From the parts wanted and the number of rounds to the results."""
PARTS = ("decode", "prefill", "start", "memory", "overhead", "serve", "quantized")
ROUNDS = 5


def main() -> None:
    """Runs the benchmark."""
    args = parse_arguments()
    require_sections(args.output, args.only)
    # Leaves by unwinding, so that engines and servers are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with alone(BUILD):
        setting = ready_setting(args)
        print(setting.machine.line(), flush=True)
        for parts, measure in groups(setting, args):
            print(f"measuring {', '.join(sorted(parts))} ...", flush=True)
            for name, part in measure().items():
                write(name, part, setting, args.output)


@contextmanager
def alone(build: Path) -> Iterator[None]:
    """Raises SystemExit when another run uses the folder: the two would measure each other."""
    build.mkdir(parents=True, exist_ok=True)
    with (build / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"Another run holds {lock.name}: wait for its end.") from None
        yield


def ready_setting(args: argparse.Namespace) -> Setting:
    """Installs and writes what is missing, then asks the machine."""
    python = ready_environment(BUILD / "venv")
    sides = both_sides(python, args.threads, args.peer_preload)
    checkpoint = ready_checkpoint(BUILD / "checkpoint", QWEN3_0_6B)
    with tempfile.TemporaryDirectory() as cache:
        machine = read_machine(sides[0], Path(cache))
    return Setting(sides, checkpoint, BUILD, machine)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=part_names, default=set(PARTS), metavar="PART[,PART...]")
    parser.add_argument("--rounds", type=positive, default=ROUNDS, help="of each part")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--rates", type=rates, default=serve.RATES, help="of serve: 0.5,1,inf")
    parser.add_argument("--requests", type=positive, default=serve.REQUESTS, help="per rate")
    preload = "LD_PRELOAD of vLLM's CPU build: the libraries its manual recommends"
    parser.add_argument("--peer-preload", default="", metavar="LIB[:LIB...]", help=preload)
    parser.add_argument("--output", type=Path, default=PAGE, help="page whose sections to write")
    return parser.parse_args(argv)


def require_sections(page: Path, parts: set[str]) -> None:
    """Raises SystemExit, before hours of work, when the page has no place for a result."""
    text = page.read_text(encoding="utf-8")
    missing = [part for part in sorted(parts) if f"<!-- peers-{part}: begin -->" not in text]
    if missing:
        raise SystemExit(f"{page} has no section peers-{', peers-'.join(missing)}")


def part_names(text: str) -> set[str]:
    """Names of parts, separated by commas."""
    names = set(text.split(","))
    if not names <= set(PARTS):
        raise argparse.ArgumentTypeError(f"{text}: expected some of {','.join(PARTS)}")
    return names


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, 1 or more")
    return int(text)


def rates(text: str) -> tuple[float, ...]:
    """Requests per second, separated by commas; inf sends all at once."""
    values = tuple(map(float, text.split(",")))
    if not all(value > 0 for value in values):
        raise argparse.ArgumentTypeError(f"{text}: expected rates above 0")
    return values


def groups(
    setting: Setting, args: argparse.Namespace
) -> list[tuple[set[str], Callable[[], dict[str, Part]]]]:
    """The parts that were asked for, those together that are measured together, and how."""
    load = serve.Load(args.rates, args.requests)
    wanted: list[tuple[set[str], Measure]] = [
        ({"decode", "prefill"}, partial(speed.measure, setting)),
        ({"start", "memory"}, partial(start.measure, setting)),
        ({"overhead"}, partial(overhead.measure, setting)),
        ({"serve"}, partial(serve.measure, setting, load)),
        ({"quantized"}, partial(quantized.measure, setting)),
    ]
    asked = [(parts & args.only, measure) for parts, measure in wanted]
    return [(parts, partial(measure, parts, args.rounds)) for parts, measure in asked if parts]


def write(name: str, part: Part, setting: Setting, page: Path) -> None:
    """One section with its figures beside the page."""
    draw(part.figures, page.parent / IMAGES, setting.sides[1].python)
    images = [f"![{f.alternative}]({IMAGES}/{f.name}.svg)" for f in part.figures]
    text = "\n\n".join([setting.machine.line(), part.text, *images])
    print(part.text, flush=True)
    write_section(f"peers-{name}", text, page)


if __name__ == "__main__":
    main()
