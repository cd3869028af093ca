# SPDX-License-Identifier: Apache-2.0
"""What an engine does beside computing tokens: one compilation, no copies, memory, errors."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from vllm import LLM, SamplingParams

from tests.e2e.checkpoints import VOCAB_SIZE
from tests.e2e.conftest import Checkpoint, Engine
from tests.e2e.test_correctness import generate, ragged_prompts
from vllm_mindspore.device.kernel_library import kernel_library
from vllm_mindspore.worker.input_batch import dummy_step_inputs

GREEDY = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True, detokenize=False)
LAYERS = 3
GIB = 1 << 30
# Fewer blocks than the ragged prompts and their answers need: requests are preempted.
SHORT_OF_BLOCKS = {
    "max_num_seqs": 8,
    "num_gpu_blocks_override": 24,
    "enable_prefix_caching": False,
    "max_model_len": 256,
}


def worker_of(llm: LLM) -> Any:
    """The worker of an engine in this process."""
    return llm.llm_engine.model_executor.driver_worker.worker


@pytest.fixture
def llm(checkpoint: Checkpoint, engine: Engine) -> LLM:
    """The engine most tests here share."""
    return engine(checkpoint("qwen3", torch.float32), dtype="float32")


def test_one_compilation_serves_every_shape(checkpoint: Checkpoint, engine: Engine) -> None:
    llm = engine(checkpoint("llama", torch.bfloat16), dtype="bfloat16", max_num_seqs=12)
    backend = worker_of(llm)._backend
    graphs = (backend._decoder, backend._logits)
    compiled = [set(graph.compile_cache) for graph in graphs]
    assert [len(phases) for phases in compiled] == [1, 1], "the warm-up must have compiled"
    generate(llm, ragged_prompts(), GREEDY)
    generate(llm, ragged_prompts()[:1], GREEDY)
    assert [set(graph.compile_cache) for graph in graphs] == compiled


def test_a_step_runs_only_the_planned_nodes(llm: LLM) -> None:
    """No TensorMove (a copied parameter), no Reshape: one node for all layers, and the ends."""
    library = kernel_library()
    library.enable_stats(True)
    try:
        library.reset_stats()
        worker_of(llm)._dummy_step(1, 1, 1)
        calls = {name: library.op_stats(name).calls for name in library.registered_ops()}
        custom = ("vmo_embedding", "vmo_decoder_layers", "vmo_lm_head")
        calls |= {name: library.op_stats(name).calls for name in custom}
    finally:
        library.enable_stats(False)
    assert {name: count for name, count in calls.items() if count} == {
        "Gather": 2,
        "vmo_embedding": 1,
        "AddRmsNorm": 1,
        "vmo_decoder_layers": 1,
        "vmo_lm_head": 1,
    }


def test_cache_bytes_are_honoured(checkpoint: Checkpoint, engine: Engine) -> None:
    size = 3 << 20
    llm = engine(checkpoint("qwen3", torch.float32), dtype="float32", kv_cache_memory_bytes=size)
    cache = worker_of(llm).model_runner._cache
    block = 2 * LAYERS * 16 * 2 * 40 * 4
    assert cache.num_blocks == size // block
    assert cache.num_bytes == cache.num_blocks * block


def test_cap_limits_the_cache(
    checkpoint: Checkpoint, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MS_KV_CACHE_MAX_GB", "0.01")
    llm = engine(checkpoint("qwen3", torch.float32), dtype="float32", max_num_seqs=11)
    assert 0 < worker_of(llm).model_runner._cache.num_bytes <= 0.01 * GIB


@pytest.mark.parametrize("share", [0.01, 0.02])
def test_share_of_memory_is_honoured(share: float, checkpoint: Checkpoint, engine: Engine) -> None:
    """Below the cap, the cache is the share minus weights and activations, to within a block."""
    llm = engine(checkpoint("qwen3", torch.float32), dtype="float32", gpu_memory_utilization=share)
    budget = worker_of(llm).memory_budget
    expected = int(budget.available * share) - budget.weights - budget.activations
    assert 0 < expected < budget.cap
    cache = worker_of(llm).model_runner._cache
    assert 0 <= expected - cache.num_bytes < cache.num_bytes / cache.num_blocks


@pytest.mark.parametrize("tokens", [256, 4096, 16384])
def test_activations_of_the_largest_step_are_measured(
    tokens: int, checkpoint: Checkpoint, engine: Engine
) -> None:
    """Per token at least residual, normalised input and gate output; at most every output of a
    layer and of the ends at once."""
    llm = engine(checkpoint("qwen3", torch.float32), dtype="float32", max_num_batched_tokens=tokens)
    measured = worker_of(llm).memory_budget.activations
    hidden, inner, heads, kv, table = 96, 200, 240, 80, 2 * 40
    least = (2 * hidden + inner) * 4
    most = (8 * hidden + inner + 2 * heads + 2 * kv + table) * 4
    constant = 5 * 16 * VOCAB_SIZE * 4 + 16 * 512 * 5
    assert tokens * least < measured - constant < tokens * most
    assert len(generate(llm, [list(range(1, 400))], GREEDY)[0]) == 8


def test_a_block_may_be_longer_than_the_longest_request(
    checkpoint: Checkpoint, engine: Engine
) -> None:
    llm = engine(
        checkpoint("qwen3", torch.float32), dtype="float32", max_model_len=64, block_size=128
    )
    assert len(generate(llm, [[1, 2, 3]], GREEDY)[0]) == 8


def test_preempted_prompts_are_scored_once(checkpoint: Checkpoint, engine: Engine) -> None:
    """Recomputing a preempted request must neither score its prompt again nor lose it."""
    folder = checkpoint("qwen3", torch.float32)
    params = SamplingParams(
        max_tokens=48, temperature=0, ignore_eos=True, prompt_logprobs=1, detokenize=False
    )
    scores = []
    for options in ({}, SHORT_OF_BLOCKS | {"max_num_batched_tokens": 16}, SHORT_OF_BLOCKS):
        llm = engine(folder, dtype="float32", **options)
        inputs = [{"prompt_token_ids": prompt} for prompt in ragged_prompts(seed=2)]
        outputs = llm.generate(inputs, params, use_tqdm=False)
        assert [len(o.prompt_logprobs) for o in outputs] == [
            len(o.prompt_token_ids) for o in outputs
        ]
        scores.append([o.prompt_logprobs for o in outputs])
    assert scores[0] == scores[1] == scores[2]


def test_a_kernel_error_reaches_the_caller(checkpoint: Checkpoint, engine: Engine) -> None:
    llm = engine(checkpoint("qwen3", torch.float32), dtype="float32", max_num_seqs=10)
    backend = worker_of(llm)._backend
    inputs = dataclasses.replace(dummy_step_inputs(1, 1, 16), token_ids=np.array([999], np.int32))
    with pytest.raises(RuntimeError, match="999"):
        backend.logits(backend.forward(inputs), np.zeros(1, np.int32))


def test_dummy_weights_generate(checkpoint: Checkpoint, engine: Engine) -> None:
    folder = checkpoint("qwen3", torch.float32)
    llm = engine(folder, dtype="float16", load_format="dummy")
    tokens = generate(llm, ragged_prompts(), GREEDY)
    assert all(len(row) == 8 and min(row) >= 0 and max(row) < VOCAB_SIZE for row in tokens)


def test_checkpoint_problems_are_named(
    checkpoint: Checkpoint, engine: Engine, tmp_path: Path
) -> None:
    shutil.copytree(checkpoint("llama", torch.float32), tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    weights["model.norm.weight"] = torch.ones(95)
    weights["model.layers.9.mlp.up_proj.weight"] = torch.ones(2, 2)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="does not fit the model") as error:
        engine(tmp_path, dtype="float32")
    text = str(error.value)
    assert "missing tensor model.layers.1.mlp.up_proj.weight: expected shape [200, 96]" in text
    assert "tensor model.norm.weight in model.safetensors: expected shape [96], found [95]" in text
    assert "extra tensor model.layers.9.mlp.up_proj.weight" in text


def test_unknown_architecture_is_named(
    checkpoint: Checkpoint, engine: Engine, tmp_path: Path
) -> None:
    shutil.copytree(checkpoint("llama", torch.float32), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["MysteryForCausalLM"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"MysteryForCausalLM.*Qwen3ForCausalLM"):
        engine(tmp_path, dtype="float32")
