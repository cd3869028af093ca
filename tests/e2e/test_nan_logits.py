# SPDX-License-Identifier: Apache-2.0
"""vLLM's switches for corrupted output: NaN logits are counted per request, or raised."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vllm import LLM, SamplingParams
from vllm import envs as vllm_envs
from vllm.v1.outputs import ModelRunnerOutput

from tests.e2e.checkpoints import VOCAB_SIZE
from tests.e2e.conftest import Checkpoint, Engine
from tests.e2e.test_correctness import generate
from tests.e2e.test_engine import worker_of

CACHED = list(range(1, 33))  # two blocks
PROMPTS = [[1, 2, 3], [*CACHED, 3]]
ONE_TOKEN = SamplingParams(max_tokens=1, temperature=0, detokenize=False)


@pytest.fixture(scope="module")
def llm(checkpoint: Checkpoint, engine: Engine) -> LLM:
    """An engine whose memory was corrupted after it cached a prompt."""
    folder = checkpoint("llama", torch.float32)
    llm = engine(folder, dtype="float32", num_gpu_blocks_override=40)
    generate(llm, PROMPTS, ONE_TOKEN)
    for values in worker_of(llm).model_runner._cache._values:
        values.fill_(float("nan"))
    return llm


@pytest.fixture
def outputs(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> list[ModelRunnerOutput]:
    """What the runner hands to vLLM, step by step."""
    runner: Any = worker_of(llm).model_runner
    seen: list[ModelRunnerOutput] = []
    sample_tokens = runner.sample_tokens

    def record(grammar: Any) -> ModelRunnerOutput:
        seen.append(sample_tokens(grammar))
        return seen[-1]

    monkeypatch.setattr(runner, "sample_tokens", record)
    return seen


def ask_for(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Not by the environment: vLLM stops reading it once an engine has run in this process."""
    for name in names:
        monkeypatch.setitem(vars(vllm_envs), name, True)


def test_not_counted_unless_asked_for(llm: LLM, outputs: list[ModelRunnerOutput]) -> None:
    generate(llm, PROMPTS, ONE_TOKEN)
    assert [output.num_nans_in_logits for output in outputs if output.req_ids] == [None]


def test_counted_per_request(
    llm: LLM, outputs: list[ModelRunnerOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_for(monkeypatch, "VLLM_COMPUTE_NANS_IN_LOGITS")
    generate(llm, PROMPTS, ONE_TOKEN)
    (output,) = [output for output in outputs if output.req_ids]
    counts = [output.num_nans_in_logits[name] for name in output.req_ids]
    assert counts == [0, VOCAB_SIZE]


def test_raised(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last test here: a failed step leaves the engine with its requests."""
    ask_for(monkeypatch, "VLLM_COMPUTE_NANS_IN_LOGITS", "VLLM_RAISE_ON_LOGIT_NANS")
    with pytest.raises(RuntimeError, match=rf"Logits are NaN: {VOCAB_SIZE} of request .*unset"):
        generate(llm, PROMPTS, ONE_TOKEN)
