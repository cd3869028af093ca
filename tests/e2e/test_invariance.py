# SPDX-License-Identifier: Apache-2.0
"""The same request gives the same fp32 tokens and logprobs, whatever happens around it; bf16 ones
too with VLLM_BATCH_INVARIANT."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from vllm import LLM, SamplingParams

from tests.e2e.conftest import Checkpoint, Engine
from tests.e2e.test_correctness import options, ragged_prompts

NUM_TOKENS = 48
# One checkpoint per model type; the graphs of the last three are in those of the others.
MODELS = (
    *("ernie4_5", "glm4", "llama", "qwen2", "qwen3"),
    *(pytest.param(name, marks=pytest.mark.full) for name in ("glm", "mistral", "seed_oss")),
)
Answer = tuple[list[int], list[float]]

# 7 prompts of 237 tokens and their 48 new tokens each need 40 blocks; fewer force preemption.
FEW_BLOCKS = 24


def answers(llm: LLM, prompts: list[list[int]]) -> list[Answer]:
    """Greedy tokens and their log probabilities, exactly as computed."""
    params = SamplingParams(
        max_tokens=NUM_TOKENS, temperature=0, ignore_eos=True, logprobs=0, detokenize=False
    )
    outputs = llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)
    results = []
    for output in outputs:
        completion = output.outputs[0]
        assert completion.logprobs is not None
        chosen = zip(completion.token_ids, completion.logprobs, strict=True)
        results.append((list(completion.token_ids), [step[t].logprob for t, step in chosen]))
    return results


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    """The checkpoint under test."""
    return str(request.param)


@pytest.fixture(scope="module")
def batched(name: str, checkpoint: Checkpoint, engine: Engine) -> list[Answer]:
    """All prompts at once in a default engine."""
    llm = engine(checkpoint(name, torch.float32), **options("fp32"))
    return answers(llm, ragged_prompts(seed=2))


def test_alone(name: str, batched: list[Answer], checkpoint: Checkpoint, engine: Engine) -> None:
    llm = engine(checkpoint(name, torch.float32), **options("fp32"))
    llm.reset_prefix_cache()
    assert [answers(llm, [prompt])[0] for prompt in ragged_prompts(seed=2)] == batched


def test_prefix_cache_hit(
    name: str, batched: list[Answer], checkpoint: Checkpoint, engine: Engine
) -> None:
    llm = engine(checkpoint(name, torch.float32), **options("fp32"))
    prompts = ragged_prompts(seed=2)
    answers(llm, prompts)
    params = SamplingParams(max_tokens=1, detokenize=False)
    output = llm.generate({"prompt_token_ids": prompts[-1]}, params, use_tqdm=False)[0]
    assert output.num_cached_tokens, "the prompt was not found in the prefix cache"
    assert answers(llm, prompts) == batched


def test_chunked_prefill_and_preemption(
    name: str, batched: list[Answer], checkpoint: Checkpoint, engine: Engine
) -> None:
    llm = engine(
        checkpoint(name, torch.float32),
        dtype="float32",
        max_num_batched_tokens=16,
        max_num_seqs=8,
        num_gpu_blocks_override=FEW_BLOCKS,
        enable_prefix_caching=False,
        max_model_len=256,
        disable_log_stats=False,
    )
    assert answers(llm, ragged_prompts(seed=2)) == batched
    preemptions = [m.value for m in llm.get_metrics() if m.name == "vllm:num_preemptions"]
    assert preemptions[0] > 0, "no request was preempted"


@pytest.mark.parametrize("name", ["qwen3"], indirect=True)
@pytest.mark.parametrize("block_size", [16, 32, 64, 128])
def test_block_sizes(
    block_size: int, name: str, batched: list[Answer], checkpoint: Checkpoint, engine: Engine
) -> None:
    llm = engine(checkpoint(name, torch.float32), dtype="float32", block_size=block_size)
    assert answers(llm, ragged_prompts(seed=2)) == batched


@pytest.mark.usefixtures("batch_invariant")
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.full)])
def test_types_of_16_bits(dtype: str, tiny_model: Path, engine: Engine) -> None:
    llm = engine(tiny_model, dtype=dtype, enable_prefix_caching=False, max_num_seqs=32)
    prompts = [[*range(5 + i, 40 + 2 * i)] for i in range(24)]
    together = answers(llm, prompts)
    assert [answers(llm, [prompt])[0] for prompt in prompts] == together
