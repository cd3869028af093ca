# SPDX-License-Identifier: Apache-2.0
"""The bundled trained model through the engine, with its tokenizer, as users run it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from vllm import LLM, SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from tests.e2e.conftest import Engine
from tests.e2e.reference import Reference

PROMPTS = ["Once upon a time", "I am", "In the town of", "Question: Where does the fox live?\n"]


@pytest.fixture
def llm(tiny_model: Path, engine: Engine) -> LLM:
    """The tiny model in its own dtype, bf16."""
    # The tiny model knows no JSON: where white space is allowed it would write it for ever.
    compact = {"backend": "xgrammar", "disable_any_whitespace": True}
    return engine(tiny_model, skip_tokenizer_init=False, structured_outputs_config=compact)


def test_greedy_stories_equal_transformers(
    llm: LLM, tiny_model: Path, reference: Callable[[Path], Reference]
) -> None:
    """A trained model is sure of most tokens: at least two thirds must be comparable in bf16."""
    params = SamplingParams(max_tokens=80, temperature=0)
    compared = total = 0
    for output in llm.generate(PROMPTS, params, use_tqdm=False):
        tokens = list(output.outputs[0].token_ids)
        assert output.prompt_token_ids is not None
        sequence = list(output.prompt_token_ids) + tokens[:-1]
        logits = reference(tiny_model).logits(sequence)[len(output.prompt_token_ids) - 1 :]
        clear = reference(tiny_model).clear_choices(torch.bfloat16, sequence)[-len(tokens) :]
        assert bool((logits.argmax(-1) == torch.tensor(tokens))[clear].all())
        compared, total = compared + int(clear.sum()), total + len(tokens)
    assert compared > total * 2 // 3


def test_chat_answers_and_stops(llm: LLM) -> None:
    messages = [{"role": "user", "content": "Please tell me a little story."}]
    output = llm.chat(messages, SamplingParams(max_tokens=300, temperature=0), use_tqdm=False)[0]
    assert output.outputs[0].finish_reason == "stop"
    assert len(output.outputs[0].text.split()) > 20


@pytest.mark.usefixtures("batch_invariant")
def test_a_seed_gives_the_same_text_in_any_company(llm: LLM) -> None:
    seeded = SamplingParams(max_tokens=24, temperature=1.0, top_p=0.9, seed=11)
    alone = llm.generate(PROMPTS[0], seeded, use_tqdm=False)[0].outputs[0].text
    others = [SamplingParams(max_tokens=30, temperature=1.0, seed=s) for s in range(3)]
    together = llm.generate([*PROMPTS[1:], PROMPTS[0]], [*others, seeded], use_tqdm=False)
    assert together[-1].outputs[0].text == alone
    other_seed = SamplingParams(max_tokens=24, temperature=1.0, top_p=0.9, seed=12)
    assert llm.generate(PROMPTS[0], other_seed, use_tqdm=False)[0].outputs[0].text != alone


@pytest.mark.usefixtures("batch_invariant")
def test_a_seed_survives_chunked_prefill(llm: LLM, tiny_model: Path, engine: Engine) -> None:
    """Tokens that are sampled and discarded between chunks must not use up random numbers."""
    chunked = engine(
        tiny_model, skip_tokenizer_init=False, max_num_batched_tokens=16, max_num_seqs=8
    )
    prompt = "Once upon a time there was a baker. " * 4
    params = SamplingParams(max_tokens=24, temperature=1.0, seed=5)
    texts = [e.generate(prompt, params, use_tqdm=False)[0].outputs[0].text for e in (llm, chunked)]
    assert texts[0] == texts[1]


def test_several_answers_and_stop_strings(llm: LLM) -> None:
    params = SamplingParams(n=3, max_tokens=40, temperature=1.0, seed=3, stop=["."])
    outputs = llm.generate(PROMPTS[0], params, use_tqdm=False)[0].outputs
    assert len({output.text for output in outputs}) > 1
    assert all("." not in output.text for output in outputs)


@pytest.mark.parametrize(
    ("structure", "matches"),
    [
        (StructuredOutputsParams(choice=["red", "blue"]), lambda text: text in ("red", "blue")),
        (
            StructuredOutputsParams(regex=r"[A-D]-[0-9]{2}"),
            lambda text: bool(re.fullmatch(r"[A-D]-[0-9]{2}", text)),
        ),
        (
            StructuredOutputsParams(
                json={
                    "type": "object",
                    "properties": {"animal": {"enum": ["fox", "owl"]}},
                    "required": ["animal"],
                    "additionalProperties": False,
                }
            ),
            lambda text: json.loads(text)["animal"] in ("fox", "owl"),
        ),
    ],
    ids=["choice", "regex", "json"],
)
def test_structured_output(
    structure: StructuredOutputsParams, matches: Callable[[str], bool], llm: LLM
) -> None:
    params = SamplingParams(max_tokens=64, temperature=0, structured_outputs=structure)
    free = SamplingParams(max_tokens=8, temperature=0)
    outputs = llm.generate([PROMPTS[0], PROMPTS[1]], [params, free], use_tqdm=False)
    assert matches(outputs[0].outputs[0].text), outputs[0].outputs[0].text


def test_logprobs_rank_the_chosen_token_first(llm: LLM) -> None:
    params = SamplingParams(max_tokens=12, temperature=0, logprobs=3)
    completion = llm.generate(PROMPTS[0], params, use_tqdm=False)[0].outputs[0]
    assert completion.logprobs is not None
    for token, step in zip(completion.token_ids, completion.logprobs, strict=True):
        assert len(step) == 3
        assert step[token].rank == 1
