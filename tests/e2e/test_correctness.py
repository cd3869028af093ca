# SPDX-License-Identifier: Apache-2.0
"""Native models against Hugging Face transformers with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from vllm import LLM, SamplingParams

from tests.e2e.checkpoints import SPECS, VOCAB_SIZE
from tests.e2e.conftest import Checkpoint, Engine
from tests.e2e.reference import Reference

RAGGED_LENGTHS = (2, 5, 16, 17, 33, 64, 100)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CASES = [(name, dtype) for name in SPECS for dtype in DTYPES]


def ragged_prompts(seed: int = 0) -> list[list[int]]:
    """Random prompts of different lengths."""
    rng = np.random.default_rng(seed)
    return [rng.integers(1, VOCAB_SIZE, size).tolist() for size in RAGGED_LENGTHS]


def generate(llm: LLM, prompts: list[list[int]], params: SamplingParams) -> list[list[int]]:
    """Token ids for each prompt, all submitted at once."""
    inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
    outputs = llm.generate(inputs, params, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


@pytest.mark.parametrize(("name", "dtype_name"), CASES)
def test_prompt_logprobs(
    name: str,
    dtype_name: str,
    checkpoint: Checkpoint,
    engine: Engine,
    reference: Callable[[Path], Reference],
    record_property: Callable[[str, object], None],
) -> None:
    dtype = DTYPES[dtype_name]
    folder = checkpoint(name, dtype)
    llm = engine(folder, dtype=str(dtype).removeprefix("torch."))
    params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=3, detokenize=False)
    prompts = ragged_prompts()
    outputs = llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)
    worst = 0.0
    for prompt, output in zip(prompts, outputs, strict=True):
        expected = reference(folder).logprobs(prompt)
        # A log probability is a logit minus a mean of logits: twice the error.
        allowed = 2 * reference(folder).logit_tolerance(dtype, prompt)
        assert output.prompt_logprobs is not None
        assert len(output.prompt_logprobs) == len(prompt)
        for position, found in enumerate(output.prompt_logprobs[1:]):
            assert prompt[position + 1] in found
            assert len(found) >= 3
            for token, logprob in found.items():
                error = abs(logprob.logprob - float(expected[position, token]))
                worst = max(worst, error / allowed)
                assert error <= allowed, (position, token, error, allowed)
    record_property("worst_error_of_tolerance", round(worst, 3))


@pytest.mark.parametrize(("name", "dtype_name"), CASES)
def test_greedy_tokens(
    name: str,
    dtype_name: str,
    checkpoint: Checkpoint,
    engine: Engine,
    reference: Callable[[Path], Reference],
    record_property: Callable[[str, object], None],
) -> None:
    """64 greedy tokens over a ragged batch: equal to the reference's wherever its two best logits
    lie further apart than rounding can explain; in fp32 that must be everywhere."""
    dtype = DTYPES[dtype_name]
    folder = checkpoint(name, dtype)
    llm = engine(folder, dtype=str(dtype).removeprefix("torch."))
    params = SamplingParams(max_tokens=64, temperature=0, ignore_eos=True, detokenize=False)
    prompts = ragged_prompts(seed=1)
    compared = total = 0
    for prompt, tokens in zip(prompts, generate(llm, prompts, params), strict=True):
        assert len(tokens) == 64
        logits = reference(folder).logits(prompt + tokens[:-1])[len(prompt) - 1 :]
        allowed = reference(folder).logit_tolerance(dtype, prompt + tokens[:-1])
        best = logits.topk(2).values
        clear = best[:, 0] - best[:, 1] > 2 * allowed
        agrees = logits.argmax(-1) == torch.tensor(tokens)
        assert bool(agrees[clear].all())
        compared, total = compared + int(clear.sum()), total + len(tokens)
        if dtype == torch.float32:
            assert bool(clear.all()), "this checkpoint has near-ties: choose another seed"
            assert tokens == reference(folder).greedy(prompt, 64)
    assert compared > total // 10
    record_property("compared", f"{compared} of {total} tokens")
