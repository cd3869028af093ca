# SPDX-License-Identifier: Apache-2.0
"""Scheduling policies, sleep and beam search change when and how, never what is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from vllm import LLM, SamplingParams
from vllm.sampling_params import BeamSearchParams

from tests.e2e.conftest import Checkpoint, Engine
from tests.e2e.test_correctness import ragged_prompts
from tests.e2e.test_sampling import probabilities

NAME = "qwen3"
GREEDY = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True, detokenize=False)
CACHE_BYTES = 256 << 20


def tokens(llm: LLM, prompts: list[list[int]]) -> list[list[int]]:
    inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
    return [list(o.outputs[0].token_ids) for o in llm.generate(inputs, GREEDY, use_tqdm=False)]


@pytest.fixture(scope="session")
def folder(checkpoint: Checkpoint) -> Path:
    return checkpoint(NAME, torch.float32)


def test_asynchronous_scheduling_changes_nothing(folder: Path, engine: Engine) -> None:
    prompts = ragged_prompts(seed=11)
    on = engine(folder, dtype="float32", async_scheduling=True)
    off = engine(folder, dtype="float32", async_scheduling=False)
    assert on.llm_engine.vllm_config.scheduler_config.async_scheduling
    assert not off.llm_engine.vllm_config.scheduler_config.async_scheduling
    assert tokens(on, prompts) == tokens(off, prompts)


def test_urgent_requests_go_first(folder: Path, engine: Engine) -> None:
    """One request at a time: those with the smaller number overtake those that wait."""
    llm = engine(folder, dtype="float32", scheduling_policy="priority", max_num_seqs=1)
    priorities = {"late": 5, "soon": 1, "now": 0, "last": 9}
    prompts = dict(zip(priorities, ragged_prompts(seed=12), strict=False))
    for name, priority in priorities.items():
        llm.llm_engine.add_request(
            name, {"prompt_token_ids": prompts[name]}, GREEDY, priority=priority
        )
    finished: dict[str, list[int]] = {}
    while llm.llm_engine.has_unfinished_requests():
        for output in llm.llm_engine.step():
            if output.finished:
                finished[output.request_id] = list(output.outputs[0].token_ids)
    assert list(finished) == sorted(priorities, key=priorities.__getitem__)
    plain = tokens(engine(folder, dtype="float32"), [prompts[name] for name in finished])
    assert list(finished.values()) == plain


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


@pytest.fixture(scope="session")
def sleeper(folder: Path, engine: Engine) -> LLM:
    return engine(
        folder,
        dtype="float32",
        enable_sleep_mode=True,
        kv_cache_memory_bytes=CACHE_BYTES,
        max_model_len=2048,
        max_num_batched_tokens=2048,
    )


def test_sleep_frees_the_cache_and_keeps_answers(sleeper: LLM) -> None:
    prompts = ragged_prompts(seed=13)
    expected = tokens(sleeper, prompts)
    long = [[1 + (7 * i + j) % 500 for j in range(1900)] for i in range(16)]
    tokens(sleeper, long)  # touches much of the cache
    before = resident()
    sleeper.sleep(level=1)
    freed = before - resident()
    assert freed > CACHE_BYTES // 8, f"only {freed} bytes came back"
    sleeper.wake_up()
    assert tokens(sleeper, prompts) == expected


def test_deeper_sleep_is_refused(sleeper: LLM) -> None:
    with pytest.raises(ValueError, match=r"sleep level 2 discards the weights.*use level 1"):
        sleeper.sleep(level=2)
    sleeper.wake_up()


def best_beams(
    scores: Callable[[list[int]], np.ndarray], prompt: list[int], width: int, length: int
) -> list[list[int]]:
    """The best continuations that a beam of `width` keeps, best first."""
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    for _ in range(length):
        grown = []
        for total, tokens in beams:
            logprobs = np.log(probabilities(scores(prompt + tokens)))
            for token in np.argsort(-logprobs)[: 2 * width]:
                grown.append((total + logprobs[token], [*tokens, int(token)]))
        beams = sorted(grown, key=lambda beam: -beam[0])[:width]
    return [tokens for _, tokens in beams]


def test_beam_search_keeps_the_best_continuations(
    tiny_model: Path,
    engine: Engine,
    reference: Callable[..., Any],
) -> None:
    llm = engine(tiny_model, dtype="float32", skip_tokenizer_init=False)
    model = reference(tiny_model, torch.float32)
    prompt = llm.get_tokenizer().encode("Once upon a time")
    params = BeamSearchParams(beam_width=3, max_tokens=5, ignore_eos=True)
    (output,) = llm.beam_search([{"prompt_token_ids": prompt}], params)
    found = [list(sequence.tokens[len(prompt) :]) for sequence in output.sequences]
    expected = best_beams(lambda ids: model.logits(ids)[-1].double().numpy(), prompt, 3, 5)
    assert found == expected
