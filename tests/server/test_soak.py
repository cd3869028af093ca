# SPDX-License-Identifier: Apache-2.0
"""The soak itself, for seconds: it finds nothing wrong, and it does find what is wrong."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks.soak.__main__ import problems
from benchmarks.soak.memory import Trend
from benchmarks.soak.requests import questions
from benchmarks.soak.traffic import KINDS, Traffic

ROOT = Path(__file__).resolve().parents[2]


def test_short_soak(tmp_path: Path, tiny_model: Path) -> None:
    file = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "0.35", "--clients", "100"]
    command += ["--questions", "8", "--model", str(tiny_model), "--report", str(file)]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(file.read_text(encoding="utf-8"))
    assert "No problems." in result.stdout
    assert sorted(report["sent"]) == sorted(KINDS)
    assert report["right"] == report["sent"]
    assert report["counters"]["num_preemptions_total"] > 0
    assert report["counters"]["prefix_cache_hits_total"] > 0
    assert report["questions_answered"] == 8
    assert len(report["memory"]) >= 2
    assert sum(report["streams_at_stop"].values()) == 50


GOOD: dict[str, Any] = {
    **{"failures": {}, "memory": {}, "exit_code": 0, "tracebacks_in_log": 0},
    **{"counters": {"num_preemptions_total": 3.0}, "left_over": {"num_requests_running": 0.0}},
    **{"streams_at_stop": {"abort": 50}},
}


def test_good_report_has_no_problem() -> None:
    assert problems(GOOD) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"failures": {"greedy": [2, ["'a' instead of 'b'", ""]]}}, "'a' instead of 'b'"),
        ({"memory": {"server": {"flat": False, "warm": 700, "end": 900}}}, "700 to 900 MiB"),
        ({"exit_code": 1}, "exit code 1"),
        ({"tracebacks_in_log": 1}, "1 tracebacks"),
        ({"counters": {"num_preemptions_total": 0}}, "no request was preempted"),
        ({"left_over": {"num_requests_running": 2.0}}, "num_requests_running is 2.0"),
        ({"streams_at_stop": {"abort": 1, "nothing": 1}}, "nothing"),
        ({"streams_at_stop": {"length": 50}}, "length"),
    ],
)
def test_problem_is_named(change: dict[str, Any], named: str) -> None:
    (problem,) = problems(GOOD | change)
    assert named in problem


@pytest.mark.parametrize(("end", "flat"), [(700, True), (740, True), (790, False), (500, True)])
def test_growth_beyond_what_allocators_keep_is_not_flat(end: float, flat: bool) -> None:
    assert Trend(warm=700, end=end, peak=800, slope=0).flat is flat


@contextmanager
def answering(texts: Iterator[str]) -> Iterator[str]:
    """Address of a server that answers every request with 200 and the next text."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            choice = {"index": 0, "text": next(texts), "finish_reason": "length"}
            body = f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n".encode()
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_wrong_answers_are_failures() -> None:
    """A server that says something else every time, and refuses nothing."""

    def numbers() -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield f"{number}"

    async def load(url: str) -> Traffic:
        traffic = Traffic(url, 4, questions(2), seed=0)
        await traffic.take_references()
        await traffic.run(3)
        return traffic

    with answering(numbers()) as url:
        tally = asyncio.run(load(url)).tally
    assert set(tally.failures) >= {"greedy", "constrained", "malformed"}
    assert "instead of" in tally.failures["greedy"][0]
    assert not tally.right["greedy"]
    assert not tally.right["malformed"]
