# SPDX-License-Identifier: Apache-2.0
"""Quantized checkpoints against transformers with the arithmetic of the primitives.

Where both compute in float32, their inputs to a layer differ in the last bits; a code changes only
where that crosses a rounding boundary, which hardly ever happens (found: in 3 of 56 prompts). So
most positions are as close as float32 computations are (EXACT; found: 7e-6), and none is off by
more than a few such flips explain: FLIPS times the largest effect among single flips of the first
layer, whose effects run through all.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config
from vllm import LLM, SamplingParams

from tests.e2e.checkpoints import CheckpointSpec, write_checkpoint
from tests.e2e.conftest import Checkpoint, Engine
from tests.e2e.test_correctness import generate, options, prompt_logprobs, ragged_prompts
from tests.e2e.tolerance import NOISE_RATIO, rms
from tests.quantization.checkpoints import (
    Policy,
    Quantized,
    QuantizedReference,
    all_of,
    mixed,
    mixed_weights,
)
from vllm_mindspore.quantization.description import (
    DYNAMIC,
    STATIC,
    WEIGHT_INT4,
    WEIGHT_INT8,
    Tool,
)

FLIPS, EXACT = 3.0, 1e-4
POLICIES: dict[str, Policy] = {
    "static": all_of(STATIC),
    "dynamic": all_of(DYNAMIC),
    "mixed": mixed,
    "int8 weights": all_of(WEIGHT_INT8),
    "int8 weights, head": lambda _: WEIGHT_INT8,
    "int4 weights": all_of(WEIGHT_INT4),
    "mixed weights": mixed_weights,
}
# Sizes that groups divide.
GROUPED = CheckpointSpec(
    "qwen3-groups",
    Qwen3Config,
    {"hidden_size": 128, "intermediate_size": 256, "head_dim": 64, "num_attention_heads": 4},
)
Quantize = Callable[..., Quantized]


@pytest.fixture(scope="session")
def quantize(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Quantize:
    """A quantized copy of a checkpoint, made on first use."""
    made: dict[tuple[str, str, Tool, int], Quantized] = {}

    def get(name: str, policy: str, tool: Tool, group_size: int = 0) -> Quantized:
        key = (name, policy, tool, group_size)
        if key not in made:
            if name == GROUPED.name:
                folder = write_checkpoint(GROUPED, tmp_path_factory.mktemp(name), torch.float32)
            else:
                folder = checkpoint(name, torch.float32)
            prompts = ragged_prompts(seed=3)
            made[key] = Quantized(folder, POLICIES[policy], tool, prompts, group_size)
        return made[key]

    return get


FULL = [
    ("qwen3", "static", Tool.GOLDEN_STICK),
    ("qwen2", "static", Tool.GOLDEN_STICK),  # biases, added
    ("qwen2", "dynamic", Tool.MODELSLIM),
    ("llama-biases", "mixed", Tool.MODELSLIM),
]
CASES = [
    ("qwen3", "mixed", Tool.GOLDEN_STICK),
    ("qwen2", "static", Tool.MODELSLIM),  # biases, folded
    ("glm", "mixed", Tool.MODELSLIM),  # gate and up are one tensor
    ("llama-biases", "mixed", Tool.GOLDEN_STICK),  # not one node
    *(pytest.param(*case, marks=pytest.mark.full) for case in FULL),
]


@pytest.mark.parametrize(("name", "policy", "tool"), CASES)
def test_logprobs_in_float32(
    name: str, policy: str, tool: Tool, quantize: Quantize, engine: Engine, tmp_path: Path
) -> None:
    quantized = quantize(name, policy, tool)
    folder = quantized.write(tmp_path / "quantized", torch.float32)
    reference = quantized.reference(torch.float32)
    check_logprobs(engine(folder, **options("fp32")), reference)


def check_logprobs(llm: LLM, reference: QuantizedReference) -> None:
    """Those of a model in float32, as the module says."""
    prompts = ragged_prompts()
    check_errors(prompt_logprobs(llm, prompts), prompts, reference)


def check_errors(
    logprobs: list[torch.Tensor], prompts: list[list[int]], reference: QuantizedReference
) -> None:
    """Of log probabilities [T - 1, vocab] of prompts."""
    errors = []
    for prompt, found in zip(prompts, logprobs, strict=True):
        expected = reference.logprobs(prompt)
        flips = [reference.one_flip(prompt, seed) - expected for seed in range(4)]
        limit = FLIPS * max(float(flip.abs().max()) for flip in flips)
        assert 10 * EXACT < limit < 5.0, "the measure is broken"
        errors.append((found - expected[:-1]).abs().amax(-1))
        assert float(errors[-1].max()) <= limit
    assert float(torch.cat(errors).median()) <= EXACT


def check_half_precision(
    quantized: Quantized, engine: Engine, folder: Path, dtype_name: str
) -> None:
    """As far from float32 as transformers is in that dtype."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype_name]
    folder = quantized.write(folder, dtype)
    exact, rounded = quantized.reference(torch.float32), quantized.reference(dtype)
    prompts = ragged_prompts()
    llm = engine(folder, **options(dtype_name))
    ours, theirs = [], []
    for prompt, found in zip(prompts, prompt_logprobs(llm, prompts), strict=True):
        expected = exact.logprobs(prompt)[:-1]
        ours.append((found - expected).flatten())
        theirs.append((rounded.logprobs(prompt)[:-1] - expected).flatten())
    assert rms(torch.cat(ours)) <= NOISE_RATIO * rms(torch.cat(theirs))


full = pytest.mark.full
HALVES = [
    ("bf16", "1", "qwen3", Tool.GOLDEN_STICK),
    ("fp16", "0", "qwen3", Tool.GOLDEN_STICK),
    ("bf16", "0", "qwen2", Tool.MODELSLIM),  # biases, folded
    pytest.param("fp16", "1", "qwen3", Tool.GOLDEN_STICK, marks=full),
    pytest.param("bf16", "0", "qwen3", Tool.GOLDEN_STICK, marks=full),
    pytest.param("fp16", "0", "llama-biases", Tool.GOLDEN_STICK, marks=full),
    pytest.param("bf16", "0", "glm", Tool.MODELSLIM, marks=full),
]


@pytest.mark.parametrize(("dtype_name", "fused", "name", "tool"), HALVES)
def test_logprobs_in_half_precision(
    dtype_name: str,
    fused: str,
    name: str,
    tool: Tool,
    quantize: Quantize,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As far from float32 as transformers is in that dtype, codes that change included; with the
    chain of builtin primitives as well, which is what an NPU runs."""
    monkeypatch.setenv("VLLM_MS_FUSED_KERNELS", fused)
    quantized = quantize(name, "mixed", tool)
    check_half_precision(quantized, engine, tmp_path / "quantized", dtype_name)


WEIGHTS_ALONE = [
    ("bf16", "1", "qwen3", "mixed weights", Tool.GOLDEN_STICK, 0),
    ("fp16", "1", "qwen2", "int8 weights", Tool.MODELSLIM, 0),  # biases
    ("bf16", "1", "qwen3-groups", "int4 weights", Tool.GOLDEN_STICK, 64),
    ("bf16", "0", "qwen3-groups", "int4 weights", Tool.GOLDEN_STICK, 64),
    ("bf16", "1", "qwen3-groups", "int4 weights", Tool.MODELSLIM, 128),
]
WEIGHTS_ALONE_FULL = [
    ("bf16", "1", "llama", "int8 weights, head", Tool.GOLDEN_STICK, 0),
    ("bf16", "1", "qwen3-groups", "int8 weights", Tool.MODELSLIM, 128),
    ("fp16", "1", "qwen3-groups", "int4 weights", Tool.GOLDEN_STICK, 128),
    ("fp16", "0", "qwen2", "int4 weights", Tool.MODELSLIM, 0),  # biases
    ("bf16", "1", "glm", "int4 weights", Tool.GOLDEN_STICK, 0),  # gate and up are one tensor
    ("bf16", "1", "glm4", "int8 weights", Tool.MODELSLIM, 0),  # norms behind the blocks
    ("fp16", "1", "llama-biases", "int4 weights", Tool.GOLDEN_STICK, 0),  # not one node
    ("bf16", "1", "mistral", "int8 weights", Tool.GOLDEN_STICK, 0),
    ("bf16", "1", "ernie4_5", "int4 weights", Tool.GOLDEN_STICK, 0),
    ("bf16", "1", "seed_oss", "int8 weights", Tool.MODELSLIM, 0),
    ("fp16", "0", "qwen2", "mixed weights", Tool.GOLDEN_STICK, 0),  # biases
    ("fp16", "0", "qwen3-groups", "int8 weights", Tool.MODELSLIM, 128),
    ("bf16", "0", "llama", "int8 weights, head", Tool.GOLDEN_STICK, 0),
]


@pytest.mark.parametrize(
    ("dtype_name", "fused", "name", "policy", "tool", "group_size"),
    [*WEIGHTS_ALONE, *(pytest.param(*case, marks=full) for case in WEIGHTS_ALONE_FULL)],
)
def test_logprobs_of_weights_alone(
    dtype_name: str,
    fused: str,
    name: str,
    policy: str,
    tool: Tool,
    group_size: int,
    quantize: Quantize,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same; weights are there the float32 numbers that their codes stand for."""
    monkeypatch.setenv("VLLM_MS_FUSED_KERNELS", fused)
    quantized = quantize(name, policy, tool, group_size)
    check_half_precision(quantized, engine, tmp_path / "quantized", dtype_name)


def test_float32_is_refused_for_weights_alone(
    quantize: Quantize, engine: Engine, tmp_path: Path
) -> None:
    quantized = quantize("qwen3", "mixed weights", Tool.GOLDEN_STICK)
    folder = quantized.write(tmp_path / "quantized", torch.bfloat16)
    with pytest.raises(
        ValueError, match=r"W4A16, W8A16 are computed in bfloat16 or float16; found"
    ):
        engine(folder, **options("fp32"))


def test_tokens_do_not_depend_on_the_batch(
    quantize: Quantize, engine: Engine, tmp_path: Path
) -> None:
    """Alone and in a batch the same, bit for bit: int8 sums are exact."""
    quantized = quantize("qwen3", "mixed", Tool.GOLDEN_STICK)
    folder = quantized.write(tmp_path / "quantized", torch.float32)
    llm = engine(folder, **options("fp32"))
    params = SamplingParams(max_tokens=24, temperature=0, ignore_eos=True, detokenize=False)
    prompts = ragged_prompts(seed=5)
    together = generate(llm, prompts, params)
    assert [generate(llm, [prompt], params)[0] for prompt in prompts] == together
