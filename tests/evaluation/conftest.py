# SPDX-License-Identifier: Apache-2.0
"""An HTTP server that answers as vLLM's OpenAI server does, from a table of known right answers.

It stands in for the model only: the client, the command line and the scoring are the real ones.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Oracle:
    """What the stand-in says, and what it was asked."""

    url: str = ""
    models: list[str] = field(default_factory=lambda: ["oracle"])
    max_model_len: int = 64
    answers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    broken: str | None = None  # raw body sent instead of every answer
    status: int = 200

    def get(self) -> dict[str, Any]:
        entries = [{"id": name, "max_model_len": self.max_model_len} for name in self.models]
        return {"object": "list", "data": entries}

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.requests.append((path, body))
        if path == "/tokenize":
            return {"tokens": [ord(character) for character in body["prompt"]]}
        if path == "/v1/chat/completions":
            content = self.answers.get(body["messages"][-1]["content"])
            return {"choices": [{"message": {"role": "assistant", "content": content}}]}
        prompt = body["prompt"]
        text = self.answers.get(prompt, "") if isinstance(prompt, str) else ""
        return {"choices": [{"text": text, "prompt_logprobs": self._logprobs(prompt)}]}

    def _logprobs(self, prompt: list[int] | str) -> list[dict[str, Any] | None] | None:
        if isinstance(prompt, str):
            return None
        scored = [{str(token): {"logprob": -token / 100, "rank": 1}} for token in prompt[1:]]
        return [None, *scored]


def _handler(oracle: Oracle) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(oracle.get() if self.path == "/v1/models" else {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(oracle.post(self.path, body))

        def _send(self, answer: dict[str, Any]) -> None:
            data = (oracle.broken or json.dumps(answer)).encode()
            self.send_response(oracle.status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            """Keep the test output clean."""

    return Handler


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    """A running stand-in server on a free port of 127.0.0.1."""
    state = Oracle()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()
