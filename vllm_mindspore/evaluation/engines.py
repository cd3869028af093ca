# SPDX-License-Identifier: Apache-2.0
"""Where answers and log-probabilities come from: an engine in this process, or a running server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import httpx
from tqdm import tqdm  # type: ignore[import-untyped]

from vllm_mindspore.evaluation.errors import EvaluationError

Message = dict[str, str]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
# Servers fill in what a request leaves out from the model's generation_config, penalties included.
_GREEDY = {"temperature": 0.0, "top_p": 1.0, "repetition_penalty": 1.0}
_STOP = "\n"  # answers in completion mode are one line


class Engine(Protocol):
    """What an evaluation asks of a model; results come in the order of the inputs."""

    model: str
    max_model_len: int

    def complete(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        """Greedy continuations, up to the end of the line."""

    def chat(self, conversations: Sequence[list[Message]], max_tokens: int) -> list[str]:
        """Greedy answers to conversations in the model's chat template."""

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids without added special tokens."""

    def token_logprobs(self, windows: Sequence[list[int]]) -> list[list[float]]:
        """Log-probability (nats) of every token of each window but the first."""

    def close(self) -> None:
        """Give up the processes or connections behind the engine."""


class OfflineEngine:
    """vLLM in this process."""

    def __init__(self, model: str, options: Mapping[str, Any]) -> None:
        from vllm import LLM

        self.model = model
        self._llm = LLM(model=model, **options)
        self.max_model_len: int = self._llm.model_config.max_model_len

    def complete(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        """See Engine."""
        from vllm import SamplingParams

        greedy = SamplingParams(temperature=0.0, max_tokens=max_tokens, stop=[_STOP])
        return [output.outputs[0].text for output in self._llm.generate(list(prompts), greedy)]

    def chat(self, conversations: Sequence[list[Message]], max_tokens: int) -> list[str]:
        """See Engine."""
        from vllm import SamplingParams

        greedy = SamplingParams(temperature=0.0, max_tokens=max_tokens)
        return [output.outputs[0].text for output in self._llm.chat(list(conversations), greedy)]

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """See Engine."""
        tokenizer = self._llm.get_tokenizer()
        return [tokenizer.encode(text, add_special_tokens=False) for text in texts]

    def token_logprobs(self, windows: Sequence[list[int]]) -> list[list[float]]:
        """See Engine."""
        from vllm import SamplingParams

        scoring = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0)
        prompts = [{"prompt_token_ids": window} for window in windows]
        outputs = self._llm.generate(prompts, scoring)
        return [
            [entry[token].logprob for entry, token in _scored(output.prompt_logprobs, window)]
            for output, window in zip(outputs, windows, strict=True)
        ]

    def close(self) -> None:
        """See Engine."""
        self._llm.llm_engine.engine_core.shutdown()


class ServerEngine:
    """A running OpenAI-compatible server of vLLM, asked over HTTP."""

    def __init__(self, base_url: str, model: str | None, concurrency: int) -> None:
        self._root = base_url.rstrip("/").removesuffix("/v1")
        self._concurrency = concurrency
        self._client = httpx.Client(timeout=600.0)
        self.model, self.max_model_len = self._served_model(model)

    def _served_model(self, wanted: str | None) -> tuple[str, int]:
        served = {entry["id"]: entry for entry in self._request("data", "GET", "/v1/models")}
        name = wanted if wanted is not None or len(served) != 1 else next(iter(served))
        if name is None or name not in served:
            raise EvaluationError(
                f"the server at {self._root} serves {', '.join(served) or 'nothing'}; "
                + (f"asked for {name}" if name else "name the model to measure")
            )
        return name, int(served[name]["max_model_len"])

    def complete(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        """See Engine."""

        def ask(prompt: str) -> str:
            body = {"prompt": prompt, "max_tokens": max_tokens, "stop": [_STOP], **_GREEDY}
            return str(self._post("choices", "/v1/completions", body)[0]["text"])

        return self._map(ask, prompts)

    def chat(self, conversations: Sequence[list[Message]], max_tokens: int) -> list[str]:
        """See Engine."""

        def ask(messages: list[Message]) -> str:
            body = {"messages": messages, "max_tokens": max_tokens, **_GREEDY}
            choice = self._post("choices", "/v1/chat/completions", body)[0]
            return (
                choice["message"]["content"] or ""
            )  # null when a reasoning parser took everything

        return self._map(ask, conversations)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """See Engine."""

        def ask(text: str) -> list[int]:
            body = {"prompt": text, "add_special_tokens": False}
            tokens: list[int] = self._post("tokens", "/tokenize", body)
            return tokens

        return self._map(ask, texts)

    def token_logprobs(self, windows: Sequence[list[int]]) -> list[list[float]]:
        """See Engine."""

        def ask(window: list[int]) -> list[float]:
            body = {"prompt": window, "max_tokens": 1, "prompt_logprobs": 0, **_GREEDY}
            choice = self._post("choices", "/v1/completions", body)[0]
            pairs = _scored(choice.get("prompt_logprobs"), window)
            return [float(entry[str(token)]["logprob"]) for entry, token in pairs]

        return self._map(ask, windows)

    def close(self) -> None:
        """See Engine."""
        self._client.close()

    def _map(self, ask: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
        with ThreadPoolExecutor(self._concurrency) as pool:
            results = pool.map(ask, items)
            return list(tqdm(results, total=len(items), unit="request"))

    def _post(self, field: str, path: str, body: dict[str, Any]) -> Any:
        return self._request(field, "POST", path, {"model": self.model, **body})

    def _request(
        self, field: str, method: str, path: str, body: dict[str, Any] | None = None
    ) -> Any:
        url = self._root + path
        try:
            response = self._client.request(method, url, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise EvaluationError(
                f"no answer from {url}: {error}. Is the server running? "
                "Start one with: vllm-mindspore serve MODEL"
            ) from error
        if response.status_code != httpx.codes.OK:
            raise EvaluationError(f"{url} answered {response.status_code}: {response.text[:500]}")
        try:
            answer = response.json()
        except ValueError as error:
            raise EvaluationError(f"{url} answered something that is not JSON") from error
        if field not in answer:
            raise EvaluationError(f"{url} answered without {field!r}: {response.text[:500]}")
        return answer[field]


def _scored(prompt_logprobs: Any, window: list[int]) -> Iterator[tuple[Any, int]]:
    """(entry, token) of every prompt position but the first, whose entry is None."""
    if prompt_logprobs is None or len(prompt_logprobs) != len(window):
        found = "none" if prompt_logprobs is None else str(len(prompt_logprobs))
        raise EvaluationError(f"expected prompt_logprobs of {len(window)} tokens, found {found}")
    return zip(prompt_logprobs[1:], window[1:], strict=True)
