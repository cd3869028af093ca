# SPDX-License-Identifier: Apache-2.0
"""Parts `start` and `memory`: servers started one at a time, without anything compiled before."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.processes import Memory
from benchmarks.peers.report import Figure, Pair, Part, Ratio, bar_panel, table
from benchmarks.peers.server import Server
from benchmarks.peers.setting import Setting
from benchmarks.peers.sides import GIB, OPTIONS, Side

PROMPT_TOKENS = 32
# The run between the two looks at the memory: a full batch.
RUN_REQUESTS, RUN_PROMPT_TOKENS, RUN_NEW_TOKENS = 32, 128, 64
START_GOAL, MEMORY_GOAL = "at most 0.35", "at most 1.0"


@dataclass(frozen=True)
class Start:
    """What one start of a server showed."""

    seconds: float
    loaded: Memory
    after_run: Memory | None


def measure(setting: Setting, parts: set[str], rounds: int) -> dict[str, Part]:
    """The parts of {"start", "memory"} that are asked for."""
    starts: tuple[list[Start], list[Start]] = ([], [])
    for number in range(rounds):
        for index in (0, 1) if number % 2 == 0 else (1, 0):
            side = setting.sides[index]
            start = start_once(setting, side, run="memory" in parts)
            starts[index].append(start)
            setting.show(number, side.name, f"{start.seconds:.1f} s, {start.loaded.pss:,} bytes")
    made = {}
    if "start" in parts:
        made["start"] = _start_part(setting, starts)
    if "memory" in parts:
        made["memory"] = _memory_part(setting, starts)
    return made


def start_once(setting: Setting, side: Side, run: bool) -> Start:
    """Starts a server with empty caches and, if `run`, lets it serve a full batch."""
    with tempfile.TemporaryDirectory(dir=setting.build) as cache:
        work = setting.work(side)
        with Server(side, setting.checkpoint, work, Path(cache)) as server:
            server.wait_until_ready()
            seconds = server.first_token(PROMPT_TOKENS) - server.start_time
            loaded = server.memory()
            if not run:
                return Start(seconds, loaded, None)
            server.complete(RUN_REQUESTS, RUN_PROMPT_TOKENS, RUN_NEW_TOKENS)
            return Start(seconds, loaded, server.memory())


def _start_part(setting: Setting, starts: Sequence[Sequence[Start]]) -> Part:
    ours, peer = (tuple(start.seconds for start in side) for side in starts)
    size = (setting.checkpoint / "model.safetensors").stat().st_size
    text = f"The checkpoint has {size:,} bytes and is in the page cache; compile caches are empty."
    pairs = [Pair("start to first token", "s", ours, peer, Ratio.SHARE, START_GOAL)]
    figure = Figure(
        "peers_start",
        "Seconds from the start of the server to its first token",
        (bar_panel("Server start", pairs, setting.names),),
    )
    return Part(f"{text}\n\n{table(pairs)}", (figure,))


def _memory_part(setting: Setting, starts: Sequence[Sequence[Start]]) -> Part:
    pairs = []
    for moment in ("after load", "after a run"):
        ours, peer = ([_at(moment, start) for start in side] for side in starts)
        for kind, title in (("peak_rss", "peak RSS"), ("pss", "PSS")):
            first, second = (
                tuple(getattr(look, kind) / GIB for look in side) for side in (ours, peer)
            )
            name = f"{title} {moment}"
            pairs.append(Pair(name, "GiB", first, second, Ratio.SHARE, MEMORY_GOAL))
    cache = int(OPTIONS["kv_cache_memory_bytes"])
    text = f"Both may use {cache:,} bytes of key-value cache. The run: {RUN_REQUESTS} requests of "
    text += f"{RUN_PROMPT_TOKENS} and {RUN_NEW_TOKENS} new tokens at once. Peak RSS adds up the "
    text += "highest resident size of each process, so pages they share count several times; PSS "
    text += "divides them."
    panel = bar_panel("Resident memory", pairs, setting.names)
    figure = Figure("peers_memory", "GiB of memory after load and after a run", (panel,))
    return Part(f"{text}\n\n{table(pairs)}", (figure,))


def _at(moment: str, start: Start) -> Memory:
    if moment == "after load":
        return start.loaded
    assert start.after_run is not None
    return start.after_run
