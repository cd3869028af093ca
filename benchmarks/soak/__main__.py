# SPDX-License-Identifier: Apache-2.0
"""`make soak`: serve the tiny model with few cache blocks, load it, report what broke."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.soak.memory import MemoryLog
from benchmarks.soak.requests import MAX_MODEL_LEN, MODEL, questions
from benchmarks.soak.traffic import Tally, Traffic
from vllm_mindspore.cli.demo import BUNDLED_MODEL
from vllm_mindspore.cli.server import Server

# 128 blocks of 16 tokens for up to 32 requests of up to some 600: requests are preempted all the
# time. Prompts are computed in pieces. In float32 answers do not depend on the company.
SERVER_OPTIONS = (
    *("--served-model-name", MODEL, "--dtype", "float32", "--max-model-len", str(MAX_MODEL_LEN)),
    *("--num-gpu-blocks-override", "128", "--max-num-seqs", "32"),
    *("--max-num-batched-tokens", "256"),
)
_START_SECONDS = 300
_QUIET_SECONDS = 60
_STOP_SECONDS = 20
_COUNTERS = (
    *("num_preemptions_total", "prefix_cache_queries_total", "prefix_cache_hits_total"),
    *("prompt_tokens_total", "generation_tokens_total"),
)
_GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")


def main() -> int:
    """Returns 1 when something failed."""
    args = _arguments()
    with tempfile.TemporaryDirectory(prefix="vllm-mindspore-soak-") as folder:
        log = args.log or Path(folder) / "server.log"
        with Server(args.model, log, [*SERVER_OPTIONS, *args.serve_options]) as server:
            server.wait_until_ready(_START_SECONDS, lambda seconds: None)
            print(f"Ready at {server.url}; {args.clients} clients, {args.minutes} minutes.")
            report = asyncio.run(_soak(server, args))
            report["exit_code"] = server.wait(_STOP_SECONDS)
        report["tracebacks_in_log"] = log.read_text(errors="replace").count("Traceback")
    report["problems"] = problems(report)
    print(text_of(report))
    if args.report:
        args.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if report["problems"] else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="of load (default: 3)")
    parser.add_argument("--clients", type=int, default=200, help="at the same time (default: 200)")
    parser.add_argument("--questions", type=int, default=24, help="greedy requests with reference")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice")
    parser.add_argument("--model", default=str(BUNDLED_MODEL), help="model folder")
    parser.add_argument("--report", type=Path, help="JSON file to write")
    parser.add_argument("--log", type=Path, help="file for the server's log (default: dropped)")
    parser.add_argument("serve_options", nargs="*", help="further options of serve, after --")
    return parser.parse_args()


async def _soak(server: Server, args: argparse.Namespace) -> dict[str, Any]:
    traffic = Traffic(server.url, args.clients, questions(args.questions), args.seed)
    await traffic.take_references()
    before = metrics(server.url)
    memory = MemoryLog(server.pid)
    sampling = asyncio.create_task(_sample(memory, max(0.5, 60 * args.minutes / 200)))
    progress = asyncio.create_task(_progress(traffic.tally))
    await traffic.run(60 * args.minutes)
    sampling.cancel()
    progress.cancel()
    quiet = await _quiet(server.url)
    after = metrics(server.url)
    endings = await traffic.interrupted(
        lambda: os.kill(server.pid, signal.SIGTERM), args.clients // 2
    )
    tally = traffic.tally
    return {
        **{"minutes": args.minutes, "clients": args.clients, "seed": args.seed},
        **{"server_options": [*SERVER_OPTIONS, *args.serve_options], "questions": args.questions},
        **{"sent": dict(tally.sent), "right": dict(tally.right), "chunks": tally.chunks},
        "questions_answered": len(tally.answers_per_question),
        "failures": {kind: [len(all_), all_[:20]] for kind, all_ in tally.failures.items()},
        "counters": {name: after[name] - before[name] for name in _COUNTERS},
        "left_over": {name: quiet[name] for name in _GAUGES},
        "memory": {n: asdict(t) | {"flat": t.flat} for n, t in memory.trends().items()},
        "streams_at_stop": {ending: endings.count(ending) for ending in sorted(set(endings))},
    }


async def _sample(memory: MemoryLog, interval: float) -> None:
    while True:
        memory.sample()
        await asyncio.sleep(interval)


async def _progress(tally: Tally) -> None:
    start = time.monotonic()
    while True:
        await asyncio.sleep(30)
        failed = sum(map(len, tally.failures.values()))
        print(
            f"  {time.monotonic() - start:.0f} s: {sum(tally.sent.values())} requests, "
            f"{failed} failures",
            flush=True,
        )


async def _quiet(url: str) -> dict[str, float]:
    """The gauges once nothing runs any more; those of the last look when that does not come."""
    for _ in range(_QUIET_SECONDS):
        found = metrics(url)
        if not any(found[name] for name in _GAUGES):
            break
        await asyncio.sleep(1)
    return found


def metrics(url: str) -> dict[str, float]:
    """Values of /metrics that the report has, by name without `vllm:`."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    found = {}
    for name in (*_COUNTERS, *_GAUGES):
        values = re.findall(rf"^vllm:{name}{{[^}}]*}} (\S+)$", text, re.MULTILINE)
        found[name] = sum(map(float, values))
    return found


def problems(report: dict[str, Any]) -> list[str]:
    """What is not as it must be, a line each."""
    found = [
        f"{kind}: {count} failures, first: {shown[0]}"
        for kind, (count, shown) in report["failures"].items()
    ]
    found += [
        f"memory of {name} grows: {trend['warm']:.0f} to {trend['end']:.0f} MiB"
        for name, trend in report["memory"].items()
        if not trend["flat"]
    ]
    found += [f"{name} is {value} at rest" for name, value in report["left_over"].items() if value]
    if not report["counters"]["num_preemptions_total"]:
        found.append("no request was preempted: the load does not do what it is for")
    # More streams than run at once: the first ones may be complete before the last have begun.
    if not {"abort"} <= set(report["streams_at_stop"]) <= {"abort", "length"}:
        found.append(f"streams at the stop ended as {report['streams_at_stop']}")
    if report["exit_code"] or report["tracebacks_in_log"]:
        found.append(f"exit code {report['exit_code']}, {report['tracebacks_in_log']} tracebacks")
    return found


def text_of(report: dict[str, Any]) -> str:
    """The report for people."""
    counters = report["counters"]
    hits = counters["prefix_cache_hits_total"] / max(1, counters["prefix_cache_queries_total"])
    lines = [f"{'kind':<20}{'sent':>8}{'as it must be':>16}"]
    lines += [
        f"{kind:<20}{count:>8}{report['right'].get(kind, 0):>16}"
        for kind, count in report["sent"].items()
    ]
    lines += [
        f"different greedy questions answered: {report['questions_answered']}",
        f"tokens: {counters['prompt_tokens_total']:.0f} of prompts, "
        f"{counters['generation_tokens_total']:.0f} generated",
        f"preemptions: {counters['num_preemptions_total']:.0f}, prefix cache: {hits:.0%} hits",
        f"{'resident memory':<32}{'warm':>8}{'end':>8}{'peak':>8} MiB, MiB per minute",
    ]
    lines += [
        f"{name:<32}{t['warm']:>8.0f}{t['end']:>8.0f}{t['peak']:>8.0f}     {t['slope']:+.2f}"
        for name, t in report["memory"].items()
    ]
    lines.append(f"SIGTERM with streams open: {report['streams_at_stop']}")
    lines += [f"PROBLEM: {problem}" for problem in report["problems"]] or ["No problems."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
