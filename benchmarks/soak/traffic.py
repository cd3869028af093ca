# SPDX-License-Identifier: Apache-2.0
"""The clients of the soak: hundreds at once, each sending one request after the other."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.soak import requests
from benchmarks.soak.requests import Question

# How often each kind is sent, relative to the others.
KINDS = {
    **{"greedy": 40, "sampled": 20, "constrained": 8, "left": 16, "oversize": 6},
    **{"malformed": 8, "broken_connection": 2},
}
_SHOWN_FAILURES = 20


@dataclass
class Tally:
    """What was sent and what came back. A failure is anything a kind must not get."""

    sent: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    answers_per_question: Counter[int] = field(default_factory=Counter)
    failures: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    chunks: int = 0

    def fail(self, kind: str, what: str) -> None:
        """Count a failure; the first ones are kept in full."""
        kept = self.failures[kind]
        kept.append(what if len(kept) < _SHOWN_FAILURES else "")


class WrongAnswerError(Exception):
    """The server answered, but not as it must."""


class Traffic:
    """Clients of one server.

    Args:
        url: base address of the server.
        clients: how many send at the same time.
        questions: the greedy requests.
        seed: of every random choice.
    """

    def __init__(self, url: str, clients: int, questions: Sequence[Question], seed: int) -> None:
        self.tally = Tally()
        self._url = url
        self._clients = clients
        self._questions = questions
        self._seed = seed
        self._references: list[str] = []

    async def take_references(self) -> None:
        """Ask every question alone, one after the other."""
        async with self._connections() as http:
            self._references = [
                await self._text(http, question.body(stream=True)) for question in self._questions
            ]

    async def run(self, seconds: float) -> None:
        """All clients, for `seconds`; requests under way are finished."""
        end = time.monotonic() + seconds
        async with self._connections() as http:
            await asyncio.gather(
                *(self._client(http, number, end) for number in range(self._clients))
            )

    async def interrupted(self, stop: Any, streams: int) -> list[str]:
        """Open `streams`, call `stop` once all are under way; how each of them ended."""
        under_way = asyncio.Semaphore(0)
        async with self._connections() as http:
            endings = [
                asyncio.create_task(self._ending(http, number, under_way))
                for number in range(streams)
            ]
            for _ in range(streams):
                await asyncio.wait_for(under_way.acquire(), 120)
            stop()
            return list(await asyncio.gather(*endings))

    async def _client(self, http: httpx.AsyncClient, number: int, end: float) -> None:
        choose = random.Random(f"{self._seed}-{number}")
        while time.monotonic() < end:
            (kind,) = choose.choices(list(KINDS), list(KINDS.values()))
            self.tally.sent[kind] += 1
            try:
                await getattr(self, f"_{kind}")(http, choose)
            except (WrongAnswerError, httpx.HTTPError, OSError) as failure:
                self.tally.fail(kind, repr(failure))
                await asyncio.sleep(0.2)  # a server that is gone is not asked in a busy loop
            else:
                self.tally.right[kind] += 1

    async def _greedy(self, http: httpx.AsyncClient, choose: random.Random) -> None:
        number = choose.randrange(len(self._questions))
        text = await self._text(http, self._questions[number].body(stream=True))
        if text != self._references[number]:
            raise WrongAnswerError(
                f"question {number}: {text!r} instead of {self._references[number]!r}"
            )
        self.tally.answers_per_question[number] += 1

    async def _sampled(self, http: httpx.AsyncClient, choose: random.Random) -> None:
        await self._text(http, requests.sampled(choose))

    async def _constrained(self, http: httpx.AsyncClient, choose: random.Random) -> None:
        body, pattern = requests.constrained(choose)
        text = await self._text(http, body)
        if not re.fullmatch(pattern, text):
            raise WrongAnswerError(f"{text!r} does not match {pattern}")

    async def _left(self, http: httpx.AsyncClient, choose: random.Random) -> None:
        """Disconnect before the end, while waiting for the first piece too."""
        pieces = choose.choice((0, 1, 5, 40))
        try:
            async with asyncio.timeout(choose.uniform(0.05, 20)):
                async for _ in self._chunks(http, requests.endless(choose)):
                    pieces -= 1
                    if pieces <= 0:
                        return
        except TimeoutError:
            return

    async def _oversize(self, http: httpx.AsyncClient, choose: random.Random) -> None:
        await self._refused(http, *requests.oversize(choose))

    async def _malformed(self, http: httpx.AsyncClient, choose: random.Random) -> None:
        await self._refused(http, *requests.malformed(choose))

    async def _broken_connection(self, http: httpx.AsyncClient, choose: random.Random) -> None:
        """Half of a request, or no HTTP at all, and the connection is closed."""
        address = httpx.URL(self._url)
        _, writer = await asyncio.open_connection(address.host, address.port)
        head = b"POST /v1/completions HTTP/1.1\r\nHost: soak\r\nContent-Length: 500\r\n\r\n{"
        writer.write(choose.choice((head, choose.randbytes(100), head[:20])))
        await writer.drain()
        writer.close()

    async def _refused(self, http: httpx.AsyncClient, path: str, body: bytes) -> None:
        answer = await http.post(path, content=body, headers={"Content-Type": "application/json"})
        if not 400 <= answer.status_code < 500:
            raise WrongAnswerError(f"{answer.status_code} for {body[:80]!r}: {answer.text[:200]}")

    async def _ending(
        self, http: httpx.AsyncClient, number: int, under_way: asyncio.Semaphore
    ) -> str:
        reason, announced = "nothing", False
        try:
            async for chunk in self._chunks(http, requests.endless(random.Random(number))):
                reason = chunk["choices"][0]["finish_reason"] or "nothing"
                if not announced:
                    under_way.release()
                announced = True
        except (WrongAnswerError, httpx.HTTPError) as failure:
            return repr(failure)
        return str(reason)

    async def _text(self, http: httpx.AsyncClient, body: dict[str, Any]) -> str:
        """The first choice's text; every choice must end by itself."""
        text = ""
        reasons: dict[int, str] = {}
        async for chunk in self._chunks(http, body):
            for choice in chunk["choices"]:
                text += choice["text"] if choice["index"] == 0 else ""
                if choice["finish_reason"]:
                    reasons[choice["index"]] = choice["finish_reason"]
        if len(reasons) != body.get("n", 1) or not set(reasons.values()) <= {"stop", "length"}:
            raise WrongAnswerError(f"ended as {reasons}, {body.get('n', 1)} choices asked")
        return text

    async def _chunks(
        self, http: httpx.AsyncClient, body: dict[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        async with http.stream("POST", requests.COMPLETIONS, json=body) as answer:
            if answer.status_code != 200:
                text = (await answer.aread()).decode(errors="replace")
                raise WrongAnswerError(f"{answer.status_code}: {text[:300]}")
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    chunk = json.loads(line.removeprefix("data: "))
                    if "error" in chunk:
                        raise WrongAnswerError(f"error in the stream: {chunk['error']}")
                    self.tally.chunks += 1
                    yield chunk

    def _connections(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
        return httpx.AsyncClient(base_url=self._url, limits=limits, timeout=300)
