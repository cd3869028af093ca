# SPDX-License-Identifier: Apache-2.0
"""Part `serve`: `vllm bench serve` against both servers, the same client for both."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.engine import SETTLE_SECONDS
from benchmarks.peers.processes import IdleWatch, run_logged
from benchmarks.peers.report import Figure, Line, Pair, Panel, Part, Ratio, median, table
from benchmarks.peers.server import HOST, MODEL, Server
from benchmarks.peers.setting import Setting

INPUT_TOKENS, OUTPUT_TOKENS = 128, 128
# Requests per second; the last one sends all at once, which is saturation.
RATES = (0.5, 1.0, float("inf"))
REQUESTS = 64
WARMUPS = 4
THROUGHPUT_GOAL, LATENCY_GOAL = "at least 1.1", "at most 1"
_LATENCIES = ("ttft", "tpot", "itl")


@dataclass(frozen=True)
class Load:
    """What the client is told to send."""

    rates: tuple[float, ...] = RATES
    requests: int = REQUESTS


Result = dict[str, Any]
"""The client's own result file."""


def measure(setting: Setting, load: Load, parts: set[str], rounds: int) -> dict[str, Part]:
    """The part, the only one of `parts`.

    Both servers live through the run; the client turns to one of them at a time.
    """
    results: dict[float, tuple[list[Result], list[Result]]] = {
        rate: ([], []) for rate in load.rates
    }
    watch = IdleWatch()
    with ExitStack() as stack:
        servers = []
        for side in setting.sides:
            work = setting.work(side)
            server = stack.enter_context(Server(side, setting.checkpoint, work, work))
            server.wait_until_ready()
            servers.append(server)
        for number in range(rounds):
            for rate in load.rates:
                for index in (0, 1) if number % 2 == 0 else (1, 0):
                    time.sleep(SETTLE_SECONDS)
                    with watch.over([servers[1 - index].pid]):
                        result = run_client(setting, servers[index], rate, load.requests)
                    results[rate][index].append(result)
                    found = f"{result['output_throughput']:.1f} tokens/s"
                    setting.show(number, setting.names[index], _rate_name(rate), found)
    watch.require_idle()
    return dict.fromkeys(parts, _report(setting, results, load, watch.share()))


def run_client(setting: Setting, server: Server, rate: float, requests: int) -> Result:
    """One run of the client; its result file.

    Raises:
        RuntimeError: a request failed.
    """
    # The same client for both: that of the peer's environment.
    client = setting.sides[1]
    work = setting.work(client)
    file = work / "serve.json"
    file.unlink(missing_ok=True)
    command = [
        *(str(client.python), "-m", client.program, *_arguments(server, rate, requests)),
        *("--tokenizer", str(setting.checkpoint)),
        *("--result-dir", str(work), "--result-filename", file.name),
    ]
    run_logged(command, client.environment(work), work, work / "client.log")
    result: Result = json.loads(file.read_text())
    if result["failed"] or result["completed"] != requests:
        raise RuntimeError(f"{server.side.name}: {result['failed']} of {requests} requests failed")
    return result


def _arguments(server: Server, rate: float, requests: int) -> list[str]:
    return [
        *("bench", "serve", "--backend", "openai", "--model", MODEL),
        *("--host", HOST, "--port", str(server.port), "--endpoint", "/v1/completions"),
        *("--dataset-name", "random", "--random-input-len", str(INPUT_TOKENS)),
        *("--random-output-len", str(OUTPUT_TOKENS), "--num-prompts", str(requests)),
        *("--request-rate", str(rate), "--seed", "0", "--ignore-eos", "--disable-tqdm"),
        *("--num-warmups", str(WARMUPS), "--temperature", "0", "--save-result"),
        *("--percentile-metrics", ",".join(_LATENCIES), "--metric-percentiles", "50,99"),
    ]


def _report(
    setting: Setting,
    results: dict[float, tuple[list[Result], list[Result]]],
    load: Load,
    idle_share: float,
) -> Part:
    pairs = [pair for rate, sides in results.items() for pair in _pairs(rate, *sides)]
    text = (
        f"`vllm bench serve`, random prompts of {INPUT_TOKENS} tokens, {OUTPUT_TOKENS} new ones, "
    )
    text += f"{load.requests} requests per rate, at most 32 at once in the server. "
    text += "TTFT: time to first token; TPOT: per further token of a request; ITL: between tokens. "
    text += f"The server that waited used {idle_share:.1%} of a core."
    panels = (
        _panel(setting, results, "output_throughput", "Throughput", "tokens/s"),
        _panel(setting, results, "p99_ttft_ms", "Time to first token, p99", "ms"),
        _panel(setting, results, "p99_itl_ms", "Between tokens, p99", "ms"),
    )
    figure = Figure("peers_serve", "Throughput and latencies over the request rate", panels)
    return Part(f"{text}\n\n{table(pairs)}", (figure,))


def _pairs(rate: float, ours: Sequence[Result], peer: Sequence[Result]) -> list[Pair]:
    def both(key: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        first, second = (tuple(float(result[key]) for result in side) for side in (ours, peer))
        return first, second

    name, saturated = _rate_name(rate), rate == float("inf")
    goal = THROUGHPUT_GOAL if saturated else ""
    pairs = [
        Pair(f"{name}: output", "tokens/s", *both("output_throughput"), Ratio.SHARE, goal),
    ]
    for latency in _LATENCIES:
        for statistic, goal in (("p50", ""), ("p99", LATENCY_GOAL)):
            values = both(f"{statistic}_{latency}_ms")
            title = f"{name}: {latency.upper()} {statistic}"
            pairs.append(Pair(title, "ms", *values, Ratio.SHARE, goal))
    return pairs


def _rate_name(rate: float) -> str:
    return "saturated" if rate == float("inf") else f"{rate:g} requests/s"


def _panel(
    setting: Setting,
    results: dict[float, tuple[list[Result], list[Result]]],
    key: str,
    title: str,
    unit: str,
) -> Panel:
    """Over the rate of requests that were answered: saturation has no rate of its own."""
    lines = []
    for index, label in enumerate(setting.names):
        sides = [sides[index] for sides in results.values()]
        x = tuple(median([result["request_throughput"] for result in side]) for side in sides)
        y = tuple(median([result[key] for result in side]) for side in sides)
        lines.append(Line(label, x, y))
    return Panel(title, unit, "requests/s answered", lines=tuple(lines))
