# SPDX-License-Identifier: Apache-2.0
"""Native models against Hugging Face transformers with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vllm import LLM, SamplingParams

from tests.e2e.checkpoints import SPECS, VOCAB_SIZE
from tests.e2e.conftest import Checkpoint, Engine, GetReference
from tests.e2e.tolerance import NOISE_RATIO, ROW_SPREAD, SINGLE_SPREAD, errors, rms

RAGGED_LENGTHS = (2, 5, 16, 17, 33, 64, 100)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Of the greedy tokens, those whose choice is clear in each dtype: at least this share.
COMPARED = {"fp32": 1.0, "bf16": 0.6, "fp16": 0.9}

# Run every time: each checkpoint in fp32, and what covers biases, norms, rotations and rope types
# in the others. vLLM refuses glm4 in fp16.
ALWAYS = {("qwen3", "bf16"), ("glm4", "bf16"), ("llama3-rope", "fp16"), ("qwen2", "fp16")}
CASES = [
    pytest.param(
        name,
        dtype,
        marks=[] if dtype == "fp32" or (name, dtype) in ALWAYS else [pytest.mark.full],
    )
    for name in SPECS
    for dtype in DTYPES
    if (name, dtype) != ("glm4", "fp16")
]


def ragged_prompts(seed: int = 0) -> list[list[int]]:
    """Random prompts of different lengths."""
    rng = np.random.default_rng(seed)
    return [rng.integers(1, VOCAB_SIZE, size).tolist() for size in RAGGED_LENGTHS]


def generate(llm: LLM, prompts: list[list[int]], params: SamplingParams) -> list[list[int]]:
    """Token ids for each prompt, all submitted at once."""
    inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
    outputs = llm.generate(inputs, params, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def options(dtype_name: str) -> dict[str, Any]:
    """Engine arguments of every test that compares logits, so that they share engines."""
    return {"dtype": str(DTYPES[dtype_name]).removeprefix("torch."), "max_logprobs": -1}


def prompt_logprobs(llm: LLM, prompts: list[list[int]]) -> list[torch.Tensor]:
    """fp32 [T - 1, vocab] of each prompt: log probabilities of the next token."""
    params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=-1, detokenize=False)
    inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
    found = []
    for prompt, output in zip(prompts, llm.generate(inputs, params, use_tqdm=False), strict=True):
        assert output.prompt_logprobs is not None
        first, *steps = output.prompt_logprobs
        assert first is None
        assert len(steps) == len(prompt) - 1
        assert all(sorted(step) == list(range(VOCAB_SIZE)) for step in steps)
        rows = [[step[token].logprob for token in range(VOCAB_SIZE)] for step in steps]
        found.append(torch.tensor(rows))
    return found


def check_prompt_logprobs(
    llm: LLM, folder: Path, dtype: torch.dtype, reference: GetReference
) -> dict[str, float]:
    """Holds every log probability of ragged prompts to the limits of tests/e2e/tolerance.py and
    returns how much of each limit was used."""
    prompts = ragged_prompts()
    ours, theirs = [], []
    for prompt, found in zip(prompts, prompt_logprobs(llm, prompts), strict=True):
        assert float(found.logsumexp(-1).abs().max()) < 1e-4
        expected = reference(folder).logprobs(prompt)[:-1]
        units = reference(folder).units(dtype, prompt)[:-1]
        ours.append(errors(found, expected, units))
        rounded = reference(folder, dtype).logprobs(prompt)[:-1]
        theirs.append(errors(rounded, expected, units))
    all_ours = torch.cat(ours)
    used = {
        "row": float(rms(all_ours, -1).max()) / ROW_SPREAD,
        "single": float(all_ours.abs().max()) / (SINGLE_SPREAD * ROW_SPREAD),
    }
    if dtype != torch.float32:
        used["noise"] = float(rms(all_ours) / rms(torch.cat(theirs))) / NOISE_RATIO
    assert max(used.values()) <= 1, used
    return used


@pytest.mark.parametrize(("name", "dtype_name"), CASES)
def test_prompt_logprobs(
    name: str,
    dtype_name: str,
    checkpoint: Checkpoint,
    engine: Engine,
    reference: GetReference,
    record_property: Any,
) -> None:
    dtype = DTYPES[dtype_name]
    folder = checkpoint(name, dtype)
    used = check_prompt_logprobs(engine(folder, **options(dtype_name)), folder, dtype, reference)
    record_property("share_of_limits", used)


@pytest.mark.parametrize(("name", "dtype_name"), CASES)
def test_greedy_tokens(
    name: str,
    dtype_name: str,
    checkpoint: Checkpoint,
    engine: Engine,
    reference: GetReference,
    record_property: Any,
) -> None:
    """64 greedy tokens over a ragged batch: equal to the reference's wherever its two best logits
    lie further apart than rounding can explain; in fp32 that must be everywhere."""
    dtype = DTYPES[dtype_name]
    folder = checkpoint(name, dtype)
    llm = engine(folder, **options(dtype_name))
    params = SamplingParams(max_tokens=64, temperature=0, ignore_eos=True, detokenize=False)
    prompts = ragged_prompts(seed=1)
    compared = total = 0
    for prompt, tokens in zip(prompts, generate(llm, prompts, params), strict=True):
        assert len(tokens) == 64
        sequence = prompt + tokens[:-1]
        best = reference(folder).logits(sequence)[len(prompt) - 1 :].argmax(-1)
        clear = reference(folder).clear_choices(dtype, sequence)[len(prompt) - 1 :]
        assert bool((best == torch.tensor(tokens))[clear].all())
        compared, total = compared + int(clear.sum()), total + len(tokens)
        if dtype == torch.float32:
            assert tokens == reference(folder).greedy(prompt, 64)
    record_property("compared", f"{compared} of {total} tokens")
    assert compared >= COMPARED[dtype_name] * total, "near-ties: choose another seed"
