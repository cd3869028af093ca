# SPDX-License-Identifier: Apache-2.0
"""Parts `decode` and `prefill`: two living engines that take turns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from benchmarks.peers.engine import Engine, Turns
from benchmarks.peers.report import Figure, Pair, Part, Ratio, bar_panel, median, table
from benchmarks.peers.setting import Setting
from benchmarks.shapes import QWEN3_0_6B, decode_weight_bytes

PROMPT_TOKENS, NEW_TOKENS, PREFILL_TOKENS = 32, 64, 512
# Batch size and the speed-up the project wants there.
DECODE = ((1, "1.15"), (8, "1.1"), (32, "1.1"))
PREFILL_GOAL = "0.8"

Values = dict[str, dict[int, list[float]]]
"""Part -> side's index -> a value per round."""


def measure(setting: Setting, parts: set[str], rounds: int) -> dict[str, Part]:
    """The parts of {"decode", "prefill"} that are asked for."""
    quantities: dict[str, Callable[[Turns, Engine], float]] = {}
    if "decode" in parts:
        for batch, _ in DECODE:
            quantities[f"batch {batch}"] = partial(step_ms, batch=batch)
    if "prefill" in parts:
        quantities["prefill"] = prefill_ms
    values, idle_share = alternate(setting, quantities, rounds)
    pairs = {name: _pair(name, *sides.values()) for name, sides in values.items()}
    text = f"The side that waited used {idle_share:.1%} of a core."
    made = {}
    if "decode" in parts:
        decode = [pairs[f"batch {batch}"] for batch, _ in DECODE]
        made["decode"] = _decode_part(setting, decode, text)
    if "prefill" in parts:
        made["prefill"] = Part(f"{text}\n\n{table([pairs['prefill']])}")
    return made


def alternate(
    setting: Setting, quantities: dict[str, Callable[[Turns, Engine], float]], rounds: int
) -> tuple[Values, float]:
    """Each quantity on both sides, `rounds` times after one round that is not counted.

    Also returns the share of a core that the waiting side used.
    """
    values: Values = {name: {0: [], 1: []} for name in quantities}
    with ExitStack() as stack:
        engines = [
            stack.enter_context(Engine(side, setting.checkpoint, setting.work(side)))
            for side in setting.sides
        ]
        turns = Turns(engines)
        for number in range(-1, rounds):
            # Whoever comes first in one round comes second in the next.
            for index in (0, 1) if number % 2 else (1, 0):
                turns.settle()
                for name, quantity in quantities.items():
                    value = quantity(turns, engines[index])
                    if number >= 0:
                        values[name][index].append(value)
                        setting.show(number, engines[index].side.name, name, f"{value:.1f} ms")
        turns.watch.require_idle()
        return values, turns.watch.share()


def step_ms(turns: Turns, engine: Engine, batch: int) -> float:
    """Milliseconds per decode step: the difference between long and short requests."""
    short = turns.seconds(engine, batch, PROMPT_TOKENS, 1)
    long = turns.seconds(engine, batch, PROMPT_TOKENS, 1 + NEW_TOKENS)
    return (long - short) * 1e3 / NEW_TOKENS


def prefill_ms(turns: Turns, engine: Engine) -> float:
    """Milliseconds of one prompt until its first token."""
    return turns.seconds(engine, 1, PREFILL_TOKENS, 1) * 1e3


def _pair(name: str, ours: list[float], peer: list[float]) -> Pair:
    goals = {f"batch {batch}": goal for batch, goal in DECODE}
    best = (median(ours), median(peer))
    if name == "prefill":
        title, tokens, goal = f"{PREFILL_TOKENS} tokens", PREFILL_TOKENS, PREFILL_GOAL
        remark = ""
    else:
        title, tokens, goal = name, int(name.removeprefix("batch ")), goals[name]
        read = decode_weight_bytes(QWEN3_0_6B)
        remark = "; weights at {:.1f} and {:.1f} GB/s".format(*(read / ms / 1e6 for ms in best))
    rates = "{:.1f} and {:.1f} tokens/s".format(*(tokens * 1e3 / ms for ms in best))
    return Pair(
        title, "ms", tuple(ours), tuple(peer), Ratio.SPEEDUP, f"at least {goal}", rates + remark
    )


def _decode_part(setting: Setting, pairs: list[Pair], text: str) -> Part:
    read = decode_weight_bytes(QWEN3_0_6B)
    bound = f"A step reads {read:,} bytes of weights; the machine's plain read takes "
    bound += f"{read / setting.machine.bandwidth * 1e3:.1f} ms for that."
    panel = bar_panel("Decode step", pairs, setting.names)
    figure = Figure("peers_decode", "Milliseconds of a decode step by batch size", (panel,))
    return Part(f"{bound} {text}\n\n{table(pairs)}", (figure,))
