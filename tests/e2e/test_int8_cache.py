# SPDX-License-Identifier: Apache-2.0
"""An int8 key/value cache (C8) through the engine, against transformers whose keys and values are
quantized and restored by the primitives.

Offsets cut some codes, so that the cache changes the answers by far more than rounding does: FAR
times as much, or a mistake in it could hide.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from vllm import LLM, SamplingParams

from tests.e2e.conftest import Checkpoint, Engine
from tests.e2e.test_correctness import DTYPES, options, prompt_logprobs, ragged_prompts
from tests.e2e.test_invariance import FEW_BLOCKS, Answer, answers
from tests.e2e.tolerance import NOISE_RATIO, rms
from tests.quantization.checkpoints import Policy, Quantized, all_of, mixed
from tests.quantization.int8_cache import shifted
from vllm_mindspore.quantization.description import DYNAMIC, FLOAT, Tool
from vllm_mindspore.quantization.ptq.linears import Tensors

FAR = 3.0  # found: 4.6 to 38
POLICIES: dict[str, Policy] = {
    "float": all_of(FLOAT),
    "dynamic": all_of(DYNAMIC),
    "mixed": mixed,
}
Int8Cache = Callable[[str, str], tuple[Quantized, dict[str, Tensors]]]


@pytest.fixture(scope="session")
def int8_cache(checkpoint: Checkpoint) -> Int8Cache:
    """A checkpoint by the types of its layers, with the scales of its cache."""
    made: dict[tuple[str, str], tuple[Quantized, dict[str, Tensors]]] = {}

    def get(name: str, policy: str) -> tuple[Quantized, dict[str, Tensors]]:
        if (name, policy) not in made:
            prompts = ragged_prompts(seed=3)
            folder = checkpoint(name, torch.float32)
            quantized = Quantized(folder, POLICIES[policy], Tool.MODELSLIM, prompts)
            made[name, policy] = quantized, shifted(quantized.cache_scales(prompts))
        return made[name, policy]

    return get


@pytest.fixture(scope="session")
def folder(int8_cache: Int8Cache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float16 checkpoint of float layers with an int8 cache."""
    quantized, scales = int8_cache("qwen3", "float")
    return quantized.write(tmp_path_factory.mktemp("cache") / "model", torch.float16, scales)


FIRST = ("qwen3", "float", "fp16")
CASES = [
    (*FIRST, "fused"),
    (*FIRST, "chain"),
    ("llama", "mixed", "bf16", "fused"),
    *(
        pytest.param(*case, marks=pytest.mark.full)
        for case in (
            ("llama", "mixed", "bf16", "chain"),
            ("qwen3", "dynamic", "bf16", "fused"),
            ("glm", "mixed", "fp16", "fused"),  # partial rotation, gate and up in one tensor
            ("glm4", "float", "bf16", "fused"),  # layers of more than two halves
            ("ernie4_5", "float", "fp16", "fused"),
        )
    ),
]


@pytest.mark.parametrize(("name", "policy", "dtype_name", "kernels"), CASES)
def test_logprobs(
    name: str,
    policy: str,
    dtype_name: str,
    kernels: str,
    int8_cache: Int8Cache,
    folder: Path,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As far from float32 as transformers is in that dtype, codes that change included. The chain
    is what an NPU runs: QuantV2 before ReshapeAndCache, PagedAttention with antiquant_scale."""
    monkeypatch.setenv("VLLM_MS_FUSED_KERNELS", str(int(kernels == "fused")))
    dtype = DTYPES[dtype_name]
    quantized, scales = int8_cache(name, policy)
    if (name, policy, dtype_name) != FIRST:
        folder = quantized.write(tmp_path / "quantized", dtype, scales)
    exact, rounded = (quantized.reference(kind, scales) for kind in (torch.float32, dtype))
    without = quantized.reference(torch.float32)
    prompts = ragged_prompts()
    llm = engine(folder, **options(dtype_name))
    ours, theirs, cache = [], [], []
    for prompt, found in zip(prompts, prompt_logprobs(llm, prompts), strict=True):
        expected = exact.logprobs(prompt)[:-1]
        ours.append((found - expected).flatten())
        theirs.append((rounded.logprobs(prompt)[:-1] - expected).flatten())
        cache.append((without.logprobs(prompt)[:-1] - expected).flatten())
    errors = {"ours": ours, "theirs": theirs, "of the cache": cache}
    sizes = {what: float(rms(torch.cat(parts))) for what, parts in errors.items()}
    assert sizes["ours"] <= NOISE_RATIO * sizes["theirs"], sizes
    assert sizes["of the cache"] >= FAR * sizes["ours"], sizes


@pytest.fixture(scope="module")
def together(folder: Path, engine: Engine) -> list[Answer]:
    """All prompts at once in the engine of `test_logprobs`."""
    return answers(engine(folder, **options("fp16")), ragged_prompts(seed=2))


def test_alone_and_after_a_prefix_cache_hit(
    folder: Path, together: list[Answer], engine: Engine
) -> None:
    llm = engine(folder, **options("fp16"))
    prompts = ragged_prompts(seed=2)
    llm.reset_prefix_cache()
    assert [answers(llm, [prompt])[0] for prompt in prompts] == together
    params = SamplingParams(max_tokens=1, detokenize=False)
    output = llm.generate({"prompt_token_ids": prompts[-1]}, params, use_tqdm=False)[0]
    assert output.num_cached_tokens, "the prompt was not found in the prefix cache"
    assert answers(llm, prompts) == together


def test_chunked_prefill_and_preemption(
    folder: Path, together: list[Answer], engine: Engine
) -> None:
    llm = engine(
        folder,
        dtype="float16",
        max_num_batched_tokens=16,
        max_num_seqs=8,
        num_gpu_blocks_override=FEW_BLOCKS,
        enable_prefix_caching=False,
        max_model_len=256,
        disable_log_stats=False,
    )
    assert answers(llm, ragged_prompts(seed=2)) == together
    preemptions = [m.value for m in llm.get_metrics() if m.name == "vllm:num_preemptions"]
    assert preemptions[0] > 0, "no request was preempted"


@pytest.mark.parametrize(
    "block_size", [128, *(pytest.param(size, marks=pytest.mark.full) for size in (32, 64))]
)
def test_block_sizes(block_size: int, folder: Path, together: list[Answer], engine: Engine) -> None:
    llm = engine(folder, dtype="float16", block_size=block_size)
    assert answers(llm, ragged_prompts(seed=2)) == together


def num_tokens(llm: LLM) -> int:
    config = llm.llm_engine.vllm_config.cache_config
    assert config.num_gpu_blocks is not None
    return int(config.num_gpu_blocks * config.block_size)


def test_twice_the_tokens_in_the_same_bytes(
    checkpoint: Checkpoint, folder: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    block = 16 * 2 * 2 * 40 * 3 * 2  # tokens, keys and values, heads, their size, layers, bytes
    size = {"kv_cache_memory_bytes": 400 * block, "max_model_len": 256}
    floats = engine(checkpoint("qwen3", torch.float16), dtype="float16", **size)
    codes = engine(folder, dtype="float16", **size)
    assert num_tokens(floats) == 400 * 16
    assert num_tokens(codes) == 2 * num_tokens(floats)
    assert f"{num_tokens(codes)} tokens in int8" in caplog.text
