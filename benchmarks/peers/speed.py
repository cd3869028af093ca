# SPDX-License-Identifier: Apache-2.0
"""Parts `decode` and `prefill`: two living engines that take turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

from benchmarks.peers.engine import Engine, Turns
from benchmarks.peers.report import Figure, Pair, Part, Ratio, bar_panel, median, table
from benchmarks.peers.setting import Setting
from benchmarks.shapes import QWEN3_0_6B, decode_weight_bytes

PROMPT_TOKENS, NEW_TOKENS, PREFILL_TOKENS = 32, 64, 512
# Quantity and the speed-up the project wants there.
GOALS = {"batch 1": "1.15", "batch 8": "1.1", "batch 32": "1.1", "prefill": "0.8"}
DECODE = tuple(name for name in GOALS if name != "prefill")

Values = dict[str, dict[int, list[float]]]
"""Part -> side's index -> a value per round."""


def measure(setting: Setting, parts: set[str], rounds: int) -> dict[str, Part]:
    """The parts of {"decode", "prefill"} that are asked for."""
    names = (*(DECODE if "decode" in parts else ()), *(parts & {"prefill"}))
    read = decode_weight_bytes(QWEN3_0_6B)
    pairs, text = compare(setting, {name: GOALS[name] for name in names}, read, rounds)
    made = {}
    if "decode" in parts:
        made["decode"] = _decode_part(setting, [pairs[name] for name in DECODE], text)
    if "prefill" in parts:
        made["prefill"] = Part(f"{text}\n\n{table([pairs['prefill']])}")
    return made


def compare(
    setting: Setting, goals: Mapping[str, str], read: int, rounds: int
) -> tuple[dict[str, Pair], str]:
    """Both sides on the quantities that have a goal: "prefill" and "batch N", which reads `read`
    bytes of weights. Also says what the waiting side used."""
    values, idle_share = alternate(setting, {name: _quantity(name) for name in goals}, rounds)
    pairs = {
        name: _pair(name, *sides.values(), f"at least {goals[name]}", read)
        for name, sides in values.items()
    }
    return pairs, f"The side that waited used {idle_share:.1%} of a core."


def _quantity(name: str) -> Callable[[Turns, Engine], float]:
    return prefill_ms if name == "prefill" else partial(step_ms, batch=_batch(name))


def _batch(name: str) -> int:
    return int(name.removeprefix("batch "))


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


def _pair(name: str, ours: list[float], peer: list[float], goal: str, read: int) -> Pair:
    best = (median(ours), median(peer))
    if name == "prefill":
        title, tokens, remark = f"{PREFILL_TOKENS} tokens", PREFILL_TOKENS, ""
    else:
        title, tokens = name, _batch(name)
        remark = "; weights at {:.1f} and {:.1f} GB/s".format(*(read / ms / 1e6 for ms in best))
    rates = "{:.1f} and {:.1f} tokens/s".format(*(tokens * 1e3 / ms for ms in best))
    return Pair(title, "ms", tuple(ours), tuple(peer), Ratio.SPEEDUP, goal, rates + remark)


def _decode_part(setting: Setting, pairs: list[Pair], text: str) -> Part:
    read = decode_weight_bytes(QWEN3_0_6B)
    bound = f"A step reads {read:,} bytes of weights; the machine's plain read takes "
    bound += f"{read / setting.machine.bandwidth * 1e3:.1f} ms for that."
    panel = bar_panel("Decode step", pairs, setting.names)
    figure = Figure("peers_decode", "Milliseconds of a decode step by batch size", (panel,))
    return Part(f"{bound} {text}\n\n{table(pairs)}", (figure,))
