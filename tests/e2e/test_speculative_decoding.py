# SPDX-License-Identifier: Apache-2.0
"""Speculative decoding changes the number of steps and nothing else.

In bfloat16 that needs VLLM_BATCH_INVARIANT: drafts add rows to a step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vllm import LLM, SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from tests.e2e.conftest import Engine

OPTIONS: dict[str, Any] = {"skip_tokenizer_init": False, "disable_log_stats": False}
SPECULATION = {
    "method": "ngram",
    "num_speculative_tokens": 4,
    "prompt_lookup_min": 1,
    "prompt_lookup_max": 3,
}
PROMPTS = [
    "Once upon a time there was a little cat. The little cat was sad. The little cat",
    "a b c a b c a b",
    "Tom went to the park.",
]
CASES = {
    "greedy": SamplingParams(temperature=0, max_tokens=48, logprobs=2),
    "seeded": SamplingParams(temperature=0.8, top_p=0.9, seed=7, max_tokens=48, logprobs=0),
    "processors": SamplingParams(
        temperature=0.7,
        seed=11,
        repetition_penalty=1.2,
        frequency_penalty=0.3,
        min_tokens=20,
        bad_words=["sad"],
        max_tokens=32,
    ),
    "several": SamplingParams(n=3, temperature=1.0, seed=3, max_tokens=24),
    "regex": SamplingParams(
        temperature=0, max_tokens=24, structured_outputs=StructuredOutputsParams(regex=r"(ab ){6}")
    ),
    "stop": SamplingParams(temperature=0, max_tokens=48, stop=["."]),
}


def accepted_tokens(llm: LLM) -> int:
    """Drafts that the engine has accepted so far; vLLM counts for the process's latest engine."""
    values = {m.name: m for m in llm.get_metrics()}
    return int(values["vllm:spec_decode_num_accepted_tokens"].value)


@pytest.mark.parametrize("case", CASES)
def test_same_tokens_and_logprobs(case: str, tiny_model: Path, engine: Engine) -> None:
    compare(case, "float32", tiny_model, engine)


def compare(case: str, dtype: str, tiny_model: Path, engine: Engine) -> None:
    plain = engine(tiny_model, dtype=dtype, **OPTIONS)
    speculative = engine(tiny_model, dtype=dtype, speculative_config=SPECULATION, **OPTIONS)
    before = accepted_tokens(speculative)
    expected = plain.generate(PROMPTS, CASES[case], use_tqdm=False)
    found = speculative.generate(PROMPTS, CASES[case], use_tqdm=False)
    for reference, request in zip(expected, found, strict=True):
        for one, other in zip(reference.outputs, request.outputs, strict=True):
            assert other.token_ids == one.token_ids
            assert other.finish_reason == one.finish_reason
            assert other.logprobs == one.logprobs
    if case in ("greedy", "regex"):
        assert accepted_tokens(speculative) > before


def test_accepted_drafts_save_steps(tiny_model: Path, engine: Engine) -> None:
    """A request that repeats itself gets several tokens per step."""
    llm = engine(tiny_model, dtype="float32", speculative_config=SPECULATION, **OPTIONS)
    before = accepted_tokens(llm)
    params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True, allowed_token_ids=[5])
    (output,) = llm.generate([PROMPTS[1]], params, use_tqdm=False)
    assert set(output.outputs[0].token_ids) == {5}
    assert accepted_tokens(llm) - before >= 24


@pytest.mark.usefixtures("batch_invariant")
@pytest.mark.parametrize("case", ["greedy", "seeded"])
def test_same_tokens_and_logprobs_in_bfloat16(case: str, tiny_model: Path, engine: Engine) -> None:
    compare(case, "bfloat16", tiny_model, engine)
