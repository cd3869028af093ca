# SPDX-License-Identifier: Apache-2.0
"""The chain of builtin primitives (what an NPU runs) and the fused CPU nodes agree."""

from __future__ import annotations

import pytest
import torch
from vllm import SamplingParams

from tests.e2e.checkpoints import SPECS
from tests.e2e.conftest import Checkpoint, Engine, GetReference
from tests.e2e.cpu_like_npu import pretend
from tests.e2e.test_correctness import (
    DTYPES,
    check_prompt_logprobs,
    generate,
    options,
    ragged_prompts,
)
from tests.e2e.test_engine import worker_of
from vllm_mindspore.device.compute_device import Npu

# A covering subset: partial interleaved rotation and two more norms, biases everywhere, biases on
# query, key and value, normalised heads, another rope type. fp16 of glm4 is refused by vLLM.
ALWAYS = {
    *(("glm4", "bf16"), ("llama-biases", "fp16"), ("qwen2", "bf16"), ("qwen3", "bf16")),
    ("llama3-rope", "fp16"),
}
CASES = [
    pytest.param(name, dtype, marks=[] if (name, dtype) in ALWAYS else [pytest.mark.full])
    for name in SPECS
    for dtype in ("bf16", "fp16")
    if (name, dtype) != ("glm4", "fp16")
]


@pytest.mark.parametrize(("name", "dtype_name"), CASES)
def test_chain_equals_the_reference(
    name: str,
    dtype_name: str,
    checkpoint: Checkpoint,
    engine: Engine,
    reference: GetReference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To the limits of the fused nodes, which tests/e2e/test_correctness.py holds them to."""
    folder = checkpoint(name, DTYPES[dtype_name])
    monkeypatch.setenv("VLLM_MS_FUSED_KERNELS", "0")
    chain = engine(folder, **options(dtype_name), max_num_seqs=15)
    check_prompt_logprobs(chain, folder, DTYPES[dtype_name], reference)


def test_what_is_written_for_npus(
    checkpoint: Checkpoint,
    engine: Engine,
    reference: GetReference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """VLLM_MS_DEVICE=ascend from the configuration to the tokens (tests/e2e/cpu_like_npu.py)."""
    folder = checkpoint("qwen3", torch.bfloat16)
    pretend(monkeypatch)
    chain = engine(folder, **options("bf16"), max_num_seqs=13)
    assert isinstance(worker_of(chain)._compute_device, Npu)
    assert worker_of(chain).model_runner._cache.buffers()[0][0].is_meta
    check_prompt_logprobs(chain, folder, torch.bfloat16, reference)
    params = SamplingParams(max_tokens=24, temperature=0, ignore_eos=True, detokenize=False)
    prompts = ragged_prompts(seed=4)
    found = generate(chain, prompts, params)
    monkeypatch.undo()
    monkeypatch.setenv("VLLM_MS_FUSED_KERNELS", "0")
    assert found == generate(engine(folder, **options("bf16"), max_num_seqs=15), prompts, params)


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
