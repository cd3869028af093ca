# SPDX-License-Identifier: Apache-2.0
"""A worker through the calls that vLLM's executor makes, with the bundled model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheGroupSpec

from tests.conftest import Configure
from tests.worker.scheduling import Known, new, step
from vllm_mindspore.device.kernel_library import kernel_library
from vllm_mindspore.worker.worker import MindSporeWorker

BLOCK, NUM_BLOCKS, LAYERS = 16, 12, 4
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3]
GIB = 1 << 30


@pytest.fixture(scope="module")
def config(configure: Configure) -> VllmConfig:
    """A configuration for this worker alone."""
    return configure()


@pytest.fixture(scope="module")
def worker(config: VllmConfig, tmp_path_factory: pytest.TempPathFactory) -> MindSporeWorker:
    """A worker that vLLM would send its first step to."""
    meeting_point = tmp_path_factory.mktemp("ranks") / "store"
    with set_current_vllm_config(config):
        started = MindSporeWorker(config, 0, 0, f"file://{meeting_point}", is_driver_worker=True)
        started.init_device()
        started.load_model()
        specs = started.get_kv_cache_spec()
        group = KVCacheGroupSpec(list(specs), next(iter(specs.values())))
        started.determine_available_memory()
        started.initialize_from_config(KVCacheConfig(NUM_BLOCKS, [], [group]))
        started.compile_or_warm_up_model()
    return started


def test_each_layer_states_its_cache(worker: MindSporeWorker) -> None:
    specs = worker.get_kv_cache_spec()
    assert list(specs) == [f"model.layers.{index}.self_attn" for index in range(LAYERS)]
    for spec in specs.values():
        assert (spec.block_size, spec.num_kv_heads, spec.head_size) == (BLOCK, 2, 32)
        assert spec.dtype == torch.float32


def test_steps_continue_the_prompt_as_transformers_does(
    worker: MindSporeWorker, tiny_model: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    wanted = model.generate(torch.tensor([PROMPT]), max_new_tokens=6, do_sample=False)
    outputs = []
    scheduled = step(new("a", PROMPT, [5, 9]))
    for _ in range(6):
        assert worker.execute_model(scheduled) is None
        outputs += worker.sample_tokens(None).sampled_token_ids[0]
        known = len(PROMPT) + len(outputs)
        scheduled = step(Known("a", 1, computed=known - 1, outputs=len(outputs)))
    worker.execute_model(step(finished=("a",)))
    assert outputs == wanted[0, len(PROMPT) :].tolist()


def test_the_budget_is_the_share_minus_what_is_used(worker: MindSporeWorker) -> None:
    available = worker.determine_available_memory()
    budget = worker.memory_budget
    assert available == budget.cache_bytes()
    assert budget.utilization == worker.cache_config.gpu_memory_utilization
    assert budget.num_ranks == 1
    assert budget.weights == worker._backend.weight_bytes
    assert budget.available > 0
    assert budget.activations > 0


def test_activations_grow_with_the_step(
    worker: MindSporeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = worker._measure_activations()
    monkeypatch.setattr(worker.scheduler_config, "max_num_batched_tokens", 512)
    hidden = (512 - 32) * 256 * 4  # bytes of one hidden state of the tokens that were added
    assert worker._measure_activations() > before + 2 * hidden


def test_activations_hold_the_copies_of_the_sampler(
    worker: MindSporeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = worker._measure_activations()
    monkeypatch.setattr(worker.model_config, "get_vocab_size", lambda: 2048 + 100_000)
    added = 4 * 100_000 * 4  # bytes of the logits of four requests
    assert worker._measure_activations() - before == pytest.approx(4 * added, rel=0.05)


def test_kernels_compute_again_after_the_measurement(worker: MindSporeWorker) -> None:
    worker._measure_activations()
    cache = worker._make_cache(NUM_BLOCKS)
    worker.model_runner.bind_cache(cache)
    worker.execute_model(step(new("a", PROMPT, [5, 9])))
    worker.sample_tokens(None)
    worker.execute_model(step(finished=("a",)))
    assert float(cache._keys[LAYERS - 1][5].abs().max()) > 0
    assert kernel_library().stop_footprint() == 0


def test_a_stated_cache_size_overrides_the_budget(
    worker: MindSporeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.cache_config, "kv_cache_memory_bytes", 12345)
    assert worker.determine_available_memory() == 12345


def test_the_default_cache_is_capped(
    worker: MindSporeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MS_KV_CACHE_MAX_GB", "0.001")
    page = sum(spec.page_size_bytes for spec in worker.get_kv_cache_spec().values())
    worker.determine_available_memory()
    assert worker.memory_budget.cap == max(int(0.001 * GIB), (128 // BLOCK + 1) * page)


def test_the_layout_is_the_kernels_own(worker: MindSporeWorker) -> None:
    assert worker.get_supported_kv_cache_layouts() == ["LBNHC"]


def test_it_only_generates(worker: MindSporeWorker) -> None:
    assert worker.get_supported_tasks() == ("generate",)
    assert list(worker.get_model().modules()) == []


def test_what_is_not_supported_is_refused(worker: MindSporeWorker) -> None:
    with pytest.raises(NotImplementedError, match="profiling"):
        worker.profile()
    with pytest.raises(NotImplementedError, match="use --load-format dummy"):
        worker.load_model(load_dummy_weights=True)


def test_the_longest_request_can_be_lowered(worker: MindSporeWorker) -> None:
    before = worker.model_config.max_model_len
    worker.update_max_model_len(64)
    assert worker.model_config.max_model_len == 64
    worker.update_max_model_len(before)


def test_several_cache_groups_are_refused(worker: MindSporeWorker) -> None:
    specs = worker.get_kv_cache_spec()
    groups = [KVCacheGroupSpec([name], spec) for name, spec in specs.items()]
    with pytest.raises(RuntimeError, match="expected one KV cache group of block size 16"):
        worker.initialize_from_config(KVCacheConfig(NUM_BLOCKS, [], groups))
