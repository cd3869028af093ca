# SPDX-License-Identifier: Apache-2.0
"""Engines of several ranks against one: scripts as users write them, in processes of their own."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vllm import LLM, SamplingParams

from tests.conftest import ROOT, RunPython
from tests.e2e.checkpoints import SPECS, CheckpointSpec, write_checkpoint
from tests.e2e.conftest import _ENGINE_DEFAULTS, Checkpoint, Engine
from tests.e2e.test_correctness import (
    generate,
    options,
    prompt_logprobs,
    ragged_prompts,
)
from tests.e2e.test_quantized import FLIPS, GROUPED, check_errors
from tests.e2e.tolerance import rms
from tests.quantization.checkpoints import Quantized, all_of, mixed
from vllm_mindspore.quantization.description import DYNAMIC, STATIC, WEIGHT_INT4, WEIGHT_INT8, Tool

full = pytest.mark.full
TIMEOUT = 500.0
MAX_TOKENS = 24
# Two ranks add in another order than one: log probabilities differ by rounding alone.
ROUNDING = 2e-4
NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3}
# What a script without a main guard does with an engine, and what tests do with one of theirs.
SCRIPT = """
import pickle, sys
sys.path.insert(0, {root!r})
import vllm_mindspore
from vllm import LLM
from tests.e2e.test_tensor_parallel import ask
{before}
llm = LLM({folder!r}, **{options!r})
with open({answer!r}, "wb") as file:
    pickle.dump(ask(llm, {logprobs!r}), file)
"""
Ranks = Callable[..., dict[str, Any]]


def ask(llm: LLM, logprobs: bool) -> dict[str, Any]:
    """Greedy tokens before and after random ones, seeded ones, all log probabilities of prompts."""
    prompts = [[token % 480 for token in prompt] for prompt in ragged_prompts(seed=1)]
    common = {"max_tokens": MAX_TOKENS, "ignore_eos": True, "detokenize": False}
    greedy = SamplingParams(temperature=0, **common)
    found: dict[str, Any] = {
        "greedy": generate(llm, prompts, greedy),
        "seeded": generate(llm, prompts, SamplingParams(temperature=1, seed=7, **common)),
    }
    found["random"] = generate(llm, prompts, SamplingParams(temperature=1, **common))
    # In step after all of that, and with prompts that were cached.
    found["again"] = generate(llm, prompts, greedy)
    if logprobs:
        found["logprobs"] = [part.numpy() for part in prompt_logprobs(llm, ragged_prompts())]
    return found


@pytest.fixture
def ranks(run_python: RunPython, tmp_path: Path) -> Ranks:
    """What `ask` finds of an engine of `count` ranks."""

    def run(
        folder: Path, count: int, *, env: dict[str, str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        logprobs, before = changes.pop("logprobs", True), changes.pop("before", "")
        arguments = _ENGINE_DEFAULTS | options("fp32") | {"kv_cache_memory_bytes": 64 << 20}
        arguments |= {"tensor_parallel_size": count, **changes}
        answer = tmp_path / "answer"
        script = tmp_path / "script.py"
        script.write_text(
            SCRIPT.format(
                root=str(ROOT),
                folder=str(folder),
                options=arguments,
                answer=str(answer),
                logprobs=logprobs,
                before=before,
            )
        )
        environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", **(env or {})}
        result = run_python(script, env=environment, timeout=TIMEOUT)
        found: dict[str, Any] = pickle.loads(answer.read_bytes())
        found["said"] = result.stdout + result.stderr
        assert found["again"] == found["greedy"]
        return found

    return run


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """All tokens, and log probabilities up to rounding."""
    assert found["greedy"] == expected["greedy"]
    assert found["seeded"] == expected["seeded"]
    for part, whole in zip(found.get("logprobs", ()), expected.get("logprobs", ()), strict=True):
        assert abs(part - whole).max() < ROUNDING


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        # Halves of layers that are not one node, biases, drafts.
        ("llama-biases", {"speculative_config": NGRAM}),
        # One node of all layers; the only kv head is on both ranks.
        ("llama3-rope", {"max_num_batched_tokens": 48}),
    ],
)
def test_two_ranks_equal_one(
    name: str, changes: dict[str, Any], checkpoint: Checkpoint, engine: Engine, ranks: Ranks
) -> None:
    folder = checkpoint(name, torch.float32)
    found = ranks(folder, 2, **changes)
    same(found, ask(engine(folder, **options("fp32")), True))


def spec_of(name: str) -> CheckpointSpec:
    """A checkpoint that two and four ranks divide; padding is behind its vocabulary."""
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64}
    config = SPECS[name].config | sizes | {"vocab_size": 490, "head_dim": 16}
    if name in ("llama", "qwen2"):
        config.pop("head_dim")
    return dataclasses.replace(SPECS[name], config=config)


@full
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(
    "name", ["qwen2", "qwen3", "llama", "mistral", "glm", "glm4", "ernie4_5", "seed_oss"]
)
def test_families(
    name: str, count: int, engine: Engine, ranks: Ranks, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With four ranks each kv head is on two of them."""
    folder = write_checkpoint(spec_of(name), tmp_path_factory.mktemp(name), torch.float32)
    found = ranks(folder, count, logprobs=False)
    same(found, ask(engine(folder, **options("fp32")), False))


@full
@pytest.mark.parametrize(
    "env",
    [{"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}, {"VLLM_MS_NUM_THREADS": "2"}],
    ids=["engine-in-script", "threads"],
)
def test_in_other_processes(
    env: dict[str, str], checkpoint: Checkpoint, engine: Engine, ranks: Ranks
) -> None:
    folder = checkpoint("qwen3", torch.float32)
    same(ranks(folder, 2, env=env), ask(engine(folder, **options("fp32")), True))


@full
def test_builtin_primitives(checkpoint: Checkpoint, ranks: Ranks) -> None:
    """What an NPU would run, of two ranks, as far from the fused nodes as float16 rounds."""
    folder = checkpoint("qwen3", torch.float16)
    chain = ranks(folder, 2, env={"VLLM_MS_FUSED_KERNELS": "0"}, dtype="float16")
    fused = ranks(folder, 2, dtype="float16")
    for one, other in zip(chain["logprobs"], fused["logprobs"], strict=True):
        assert abs(one - other).max() < 0.15
        assert abs(one - other).mean() < 0.02


@full
def test_what_is_written_for_npus(checkpoint: Checkpoint, ranks: Ranks) -> None:
    """In MindSpore's world, whose group is that of AllReduce, with the bits of the chain without
    it: the sums are ours here (HCCL's on an NPU)."""
    folder = checkpoint("qwen3", torch.float16)
    before = (
        "import pytest; from tests.e2e.cpu_like_npu import pretend; pretend(pytest.MonkeyPatch())"
    )
    found = ranks(folder, 2, before=before, dtype="float16")
    for rank in range(2):
        assert f"Rank {rank} of 2 in MindSpore's mccl_world_group" in found["said"]
    chain = ranks(folder, 2, env={"VLLM_MS_FUSED_KERNELS": "0"}, dtype="float16")
    assert (found["greedy"], found["seeded"]) == (chain["greedy"], chain["seeded"])
    for one, other in zip(found["logprobs"], chain["logprobs"], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def quantized(checkpoint: Checkpoint) -> Callable[..., Quantized]:
    """A quantized copy of a checkpoint."""

    def make(name: str, policy: Any, tool: Tool) -> Quantized:
        folder = checkpoint(name, torch.float32)
        return Quantized(folder, policy, tool, ragged_prompts(seed=3))

    return make


@pytest.mark.parametrize(
    ("name", "policy", "tool"),
    [
        pytest.param("qwen2", all_of(STATIC), Tool.GOLDEN_STICK, id="added-biases", marks=full),
        pytest.param("qwen2", all_of(STATIC), Tool.MODELSLIM, id="folded-biases", marks=full),
        pytest.param("glm", all_of(STATIC), Tool.MODELSLIM, id="one-tensor", marks=full),
    ],
)
def test_static_scales_give_the_same_tokens(
    name: str,
    policy: Any,
    tool: Tool,
    quantized: Callable[..., Quantized],
    engine: Engine,
    ranks: Ranks,
    tmp_path: Path,
) -> None:
    folder = quantized(name, policy, tool).write(tmp_path / "quantized", torch.float32)
    found = ranks(folder, 2, logprobs=False)
    assert found["greedy"] == ask(engine(folder, **options("fp32")), False)["greedy"]


@pytest.mark.parametrize(
    ("policy", "tool"),
    [
        pytest.param(mixed, Tool.GOLDEN_STICK, id="mixed"),
        pytest.param(all_of(DYNAMIC), Tool.MODELSLIM, id="dynamic", marks=full),
    ],
)
def test_each_rank_has_token_scales_of_its_own(
    policy: Any,
    tool: Tool,
    quantized: Callable[..., Quantized],
    ranks: Ranks,
    tmp_path: Path,
) -> None:
    """Equal to a reference whose row-parallel layers find a scale for each rank's part of a row."""
    model = quantized("qwen3", policy, tool)
    folder = model.write(tmp_path / "quantized", torch.float32)
    found = [torch.from_numpy(part) for part in ranks(folder, 2)["logprobs"]]
    check_errors(found, ragged_prompts(), model.reference(torch.float32, ranks=2))


@full
@pytest.mark.parametrize("kind", [WEIGHT_INT8, WEIGHT_INT4])
def test_weights_of_groups(
    kind: str, engine: Engine, ranks: Ranks, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As far from one rank as rounding to bfloat16 explains."""
    float_folder = write_checkpoint(GROUPED, tmp_path_factory.mktemp("float"), torch.float32)
    model = Quantized(
        float_folder, all_of(kind), Tool.GOLDEN_STICK, ragged_prompts(seed=3), group_size=64
    )
    folder = model.write(tmp_path_factory.mktemp("made") / "quantized", torch.bfloat16)
    found = [torch.from_numpy(part) for part in ranks(folder, 2, dtype="bfloat16")["logprobs"]]
    one = prompt_logprobs(engine(folder, **options("bf16")), ragged_prompts())
    exact, rounded = model.reference(torch.float32), model.reference(torch.bfloat16)
    noise = [
        (rounded.logprobs(prompt) - exact.logprobs(prompt)).flatten() for prompt in ragged_prompts()
    ]
    difference = torch.cat([(a - b).flatten() for a, b in zip(found, one, strict=True)])
    assert rms(difference) < FLIPS * rms(torch.cat(noise))


@full
def test_int8_cache(
    checkpoint: Checkpoint, engine: Engine, ranks: Ranks, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each rank has the scales of its own kv heads."""
    prompts = ragged_prompts(seed=3)
    model = Quantized(checkpoint("qwen3", torch.float32), all_of(STATIC), Tool.MODELSLIM, prompts)
    cache = model.cache_scales(prompts)
    made = tmp_path_factory.mktemp("made") / "quantized"
    folder = model.write(made, torch.float16, cache)
    found = [torch.from_numpy(part) for part in ranks(folder, 2, dtype="float16")["logprobs"]]
    one = prompt_logprobs(engine(folder, **options("fp16")), ragged_prompts())
    for part, whole in zip(found, one, strict=True):
        assert rms(part - whole) < 0.1


@full
def test_a_pooling_model(
    checkpoint: Checkpoint, tiny_model: Path, run_python: RunPython, tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoint("qwen3", torch.float32), tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):  # vLLM pools with a tokenizer only
        shutil.copy(tiny_model / name, folder)
    script = tmp_path / "pool.py"
    script.write_text(
        "import json\nimport vllm_mindspore\nfrom vllm import LLM\n"
        "for count in (1, 2):\n"
        f"    llm = LLM({str(folder)!r}, runner='pooling', seed=0, dtype='float32',\n"
        "              tensor_parallel_size=count, max_model_len=256)\n"
        "    out = llm.embed([{'prompt_token_ids': list(range(3, 40))}])\n"
        "    print('EMBEDDING', json.dumps(out[0].outputs.embedding))\n"
        "    del llm\n"
    )
    result = run_python(script, env={"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}, timeout=TIMEOUT)
    lines = [line for line in result.stdout.splitlines() if line.startswith("EMBEDDING")]
    one, two = (torch.tensor(json.loads(line.split(" ", 1)[1])) for line in lines)
    assert torch.allclose(one, two, atol=1e-5)
