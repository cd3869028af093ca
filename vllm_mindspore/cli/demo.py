# SPDX-License-Identifier: Apache-2.0
"""`vllm-mindspore demo`: serve a model, ask it over HTTP with the stock client, stop it."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from vllm_mindspore.cli.server import Server, ServerError

if TYPE_CHECKING:
    from openai import OpenAI

NAME = "demo"
HELP = "serve a model, send a completion and a streaming chat, print text and tokens/s, stop"

BUNDLED_MODEL = Path(__file__).resolve().parents[2] / "examples" / "tiny_model" / "model"
_PROMPT = "Once upon a time"
_QUESTION = "Tell me a little story."
_SERVED_NAME = "demo"
_LINE_SECONDS = 5.0


@dataclass(frozen=True)
class Answer:
    """Generated text with the number of tokens and the seconds they took."""

    text: str
    tokens: int
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--model",
        default=str(BUNDLED_MODEL),
        help="folder or Hugging Face name (default: the bundled tiny model)",
    )
    parser.add_argument("--prompt", default=_PROMPT, help="prompt of the completion")
    parser.add_argument("--question", default=_QUESTION, help="message of the chat")
    parser.add_argument("--max-tokens", type=int, default=80, help="tokens per answer")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds to wait for start-up")


def run(args: argparse.Namespace) -> int:
    """Serve, ask, print, stop. Returns 1 when the server fails or the model is missing."""
    if args.model == str(BUNDLED_MODEL) and not BUNDLED_MODEL.is_dir():
        print(
            f"The bundled model is not at {BUNDLED_MODEL} (it is part of the source tree, not of "
            "the wheel). Name one: vllm-mindspore demo --model Qwen/Qwen3-0.6B",
            file=sys.stderr,
        )
        return 1
    with (
        _stopping_signals_exit(),
        tempfile.TemporaryDirectory(prefix="vllm-mindspore-demo-") as folder,
    ):
        log = Path(folder) / "server.log"
        try:
            _serve_and_ask(args, log)
        except ServerError as failure:
            print(f"\n{failure}", file=sys.stderr)
            return 1
    return 0


@contextmanager
def _stopping_signals_exit() -> Iterator[None]:
    """SIGTERM and SIGHUP become SystemExit, so that the server, in its own session, is stopped."""
    signals = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN  # nohup stays in force
    ]

    def leave(received: int, _frame: FrameType | None) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)  # nothing interrupts the stopping
        raise SystemExit(128 + received)

    previous = {number: signal.signal(number, leave) for number in signals}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _serve_and_ask(args: argparse.Namespace, log: Path) -> None:
    print(f"Starting: vllm-mindspore serve {args.model}", flush=True)
    with Server(args.model, log, ["--served-model-name", _SERVED_NAME]) as server:
        seconds = server.wait_until_ready(args.timeout, _progress_lines())
        print(f"Ready after {seconds:.1f} s at {server.url}", flush=True)
        try:
            _ask(server.url, args)
        except Exception as error:
            raise ServerError(f"A request failed: {error}\n{server.log_tail()}") from error
        print("\nStopping the server ...", flush=True)
    print("Stopped.")


def _ask(url: str, args: argparse.Namespace) -> None:
    from openai import OpenAI

    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        print(f"\nPOST /v1/completions\nPrompt: {args.prompt}")
        answer = complete(client, args.prompt, args.max_tokens)
        print(f"Generated text: {answer.text.strip()}\n{_speed(answer)}")
        print(f"\nPOST /v1/chat/completions (streaming)\nPrompt: {args.question}")
        print("Generated text: ", end="", flush=True)
        answer = chat(client, args.question, args.max_tokens)
        print(f"\n{_speed(answer)}")


def complete(client: OpenAI, prompt: str, max_tokens: int) -> Answer:
    """One greedy completion."""
    start = time.monotonic()
    response = client.completions.create(
        model=_SERVED_NAME, prompt=prompt, max_tokens=max_tokens, temperature=0
    )
    tokens = response.usage.completion_tokens if response.usage else 0
    return Answer(response.choices[0].text, tokens, time.monotonic() - start)


def chat(client: OpenAI, question: str, max_tokens: int) -> Answer:
    """One greedy chat answer, printed piece by piece while it arrives."""
    start = time.monotonic()
    stream = client.chat.completions.create(
        model=_SERVED_NAME,
        messages=[{"role": "user", "content": question}],
        max_tokens=max_tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    pieces: list[str] = []
    tokens = 0
    for chunk in stream:
        for choice in chunk.choices:
            pieces.append(choice.delta.content or "")
            print(pieces[-1], end="", flush=True)
        tokens = chunk.usage.completion_tokens if chunk.usage else tokens
    return Answer("".join(pieces), tokens, time.monotonic() - start)


def _speed(answer: Answer) -> str:
    rate = answer.tokens / answer.seconds
    return f"{answer.tokens} tokens in {answer.seconds:.2f} s: {rate:.1f} tokens/s"


def _progress_lines() -> Callable[[float], None]:
    """A callback that prints the elapsed time, a line every few seconds."""
    last = 0.0

    def show(elapsed: float) -> None:
        nonlocal last
        if elapsed - last >= _LINE_SECONDS:
            last = elapsed
            print(f"  waiting for /health: {elapsed:.0f} s", flush=True)

    return show
