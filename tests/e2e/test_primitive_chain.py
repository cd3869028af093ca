# SPDX-License-Identifier: Apache-2.0
"""The chain of builtin primitives (what an NPU runs) and the fused CPU nodes agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from vllm import LLM, SamplingParams

from tests.e2e.conftest import Checkpoint, Engine
from tests.e2e.reference import Reference
from tests.e2e.test_correctness import DTYPES, generate, ragged_prompts


def _prompt_logprobs(llm: LLM, prompt: list[int]) -> torch.Tensor:
    """fp32 [T - 1, vocab] of every token at every position."""
    params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=-1, detokenize=False)
    output = llm.generate({"prompt_token_ids": prompt}, params, use_tqdm=False)[0]
    assert output.prompt_logprobs is not None
    rows = [step for step in output.prompt_logprobs if step is not None]
    return torch.tensor([[row[token].logprob for token in sorted(row)] for row in rows])


@pytest.mark.parametrize("dtype_name", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["qwen3", "llama3-rope"])
def test_chain_equals_fused(
    name: str,
    dtype_name: str,
    checkpoint: Checkpoint,
    engine: Engine,
    reference: Callable[[Path], Reference],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dtype = DTYPES[dtype_name]
    folder = checkpoint(name, dtype)
    options = {"dtype": str(dtype).removeprefix("torch."), "max_logprobs": -1}
    fused = engine(folder, **options)
    monkeypatch.setenv("VLLM_MS_FUSED_KERNELS", "0")
    chain = engine(folder, **options, max_num_seqs=15)
    prompt = ragged_prompts(seed=3)[-1]
    allowed = 2 * reference(folder).logit_tolerance(dtype, prompt)
    found, expected = _prompt_logprobs(chain, prompt), _prompt_logprobs(fused, prompt)
    assert not torch.equal(found, torch.zeros_like(found))
    assert float((found - expected).abs().max()) <= allowed


def test_chain_serves_ragged_decode(
    checkpoint: Checkpoint, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batching does not change what the chain computes for a request."""
    monkeypatch.setenv("VLLM_MS_FUSED_KERNELS", "0")
    llm = engine(checkpoint("qwen3", torch.float16), dtype="float16", max_num_seqs=14)
    params = SamplingParams(max_tokens=24, temperature=0, ignore_eos=True, detokenize=False)
    prompts = ragged_prompts(seed=4)
    together = generate(llm, prompts, params)
    llm.reset_prefix_cache()
    assert [generate(llm, [prompt], params)[0] for prompt in prompts] == together


def test_chain_refuses_float32(
    checkpoint: Checkpoint, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MS_FUSED_KERNELS", "0")
    with pytest.raises(ValueError, match="refuse float32 caches"):
        engine(checkpoint("qwen3", torch.float32), dtype="float32", max_num_seqs=13)
