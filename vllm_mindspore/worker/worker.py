# SPDX-License-Identifier: Apache-2.0
"""The worker vLLM starts once per rank: device, model, cache memory, then steps."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from vllm import envs as vllm_envs
from vllm.distributed.parallel_state import (
    ensure_model_parallel_initialized,
    init_distributed_environment,
    set_custom_all_reduce,
)
from vllm.logger import init_logger
from vllm.lora.request import LoRARequest
from vllm.utils.torch_utils import set_random_seed
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheSpec
from vllm.v1.outputs import DraftTokenIds, ModelRunnerOutput
from vllm.v1.worker.worker_base import CompilationTimes, WorkerBase

from vllm_mindspore import envs, process_end
from vllm_mindspore.device.compute_device import Cpu, Npu
from vllm_mindspore.machine_share import ranks_of_machine
from vllm_mindspore.model_executor.backends.native import NativeBackend
from vllm_mindspore.worker import kv_cache, ranks
from vllm_mindspore.worker.input_batch import dummy_step_inputs
from vllm_mindspore.worker.kv_cache import KVCache, MemoryBudget
from vllm_mindspore.worker.lora import LoraAdapters
from vllm_mindspore.worker.model_runner import MindSporeModelRunner, TorchModules

logger = init_logger("vllm.vllm_mindspore.worker")

_GIB = 1 << 30
# Copies of the logits that vLLM's sampler makes: processed, sorted, probabilities, indices.
_SAMPLER_COPIES = 4
# Per request and position, vLLM's batch keeps an int32 token id and a flag.
_TOKEN_TABLE_BYTES = 5


class MindSporeWorker(WorkerBase):
    """One rank: a MindSpore runtime, a model and its KV cache."""

    def init_device(self) -> None:
        """Starts MindSpore in this process and joins the ranks."""
        process_end.follow_parent()
        num_ranks = ranks_of_machine(self.vllm_config)
        npu = envs.uses_npus()
        self._compute_device = Npu(self.local_rank, num_ranks) if npu else Cpu(num_ranks)
        self.device = torch.device("cpu")
        # Sampling is small; torch's OpenMP threads would only spin against our kernels.
        torch.set_num_threads(1)
        self._join_ranks()
        self._library, self._group = ranks.start(self._compute_device)
        set_random_seed(self.model_config.seed)

    def load_model(self, *, load_dummy_weights: bool = False) -> None:
        """Builds the model with its weights."""
        if load_dummy_weights:
            raise NotImplementedError("load_dummy_weights: use --load-format dummy")
        self._backend = NativeBackend(self.vllm_config, self._group)
        self._backend.load()
        self.model_runner = MindSporeModelRunner(self.vllm_config, self._backend, self._group)

    def get_supported_kv_cache_layouts(self) -> list[str]:
        """Layers outermost, then blocks, tokens, heads, channels: MindSpore's paged layout."""
        return ["LBNHC"]

    def get_kv_cache_spec(self) -> dict[str, KVCacheSpec]:
        """The cache of each layer."""
        return kv_cache.cache_specs(self._backend.cache_shapes(), self.vllm_config)

    def determine_available_memory(self) -> int:
        """Bytes for the KV cache of this rank."""
        with ranks.told(self._group):
            activations = self._measure_activations()
        if self.cache_config.kv_cache_memory_bytes:
            return int(self.cache_config.kv_cache_memory_bytes)
        page = sum(spec.page_size_bytes for spec in self.get_kv_cache_spec().values())
        self.memory_budget = MemoryBudget(
            available=self._compute_device.free_memory(),
            utilization=self.cache_config.gpu_memory_utilization,
            num_ranks=self._compute_device.num_sharing,
            weights=self._backend.weight_bytes,
            activations=activations,
            cap=self._cache_cap(page),
        )
        logger.info("Memory: %s", self.memory_budget)
        return self.memory_budget.cache_bytes()

    def update_max_model_len(self, max_model_len: int) -> None:
        """vLLM lowered the longest request to what the cache can hold."""
        self.model_config.max_model_len = max_model_len

    def initialize_from_config(self, kv_cache_config: KVCacheConfig) -> None:
        """Allocates the cache."""
        cache = self._make_cache(kv_cache.num_blocks(kv_cache_config, self.cache_config.block_size))
        self.model_runner.bind_cache(cache)
        logger.info(
            "KV cache: %d blocks of %d tokens = %d tokens in %s, %d bytes (%.2f GiB)",
            cache.num_blocks,
            cache.block_size,
            cache.num_blocks * cache.block_size,
            str(cache.dtype).removeprefix("torch."),
            cache.num_bytes,
            cache.num_bytes / _GIB,
        )

    def compile_or_warm_up_model(self) -> CompilationTimes:
        """Runs prefill and decode once, so that no request waits for a compilation."""
        start = time.perf_counter()
        prompt = min(self.cache_config.block_size, self.model_config.max_model_len)
        with ranks.told(self._group):
            for tokens, requests in ((prompt, 1), (1, 1)):
                self._dummy_step(tokens, requests, requests)
        return CompilationTimes(time.perf_counter() - start, 0.0)

    def sleep(self, level: int = 1) -> None:
        """Gives the memory of the key/value cache back to the system, until `wake_up`.

        Weights stay where level 1 puts them, in main memory. ValueError for another level.
        """
        if level != 1:
            raise ValueError(
                f"sleep level {level} discards the weights, which vllm-mindspore reads once, at "
                "start; use level 1, which frees the key-value cache"
            )
        self.model_runner.release_cache()

    def wake_up(self, tags: list[str] | None = None) -> None:
        """Nothing to do: memory of the cache comes back when it is written to."""

    def discard(self, tags: tuple[str, ...]) -> None:
        """Gives the memory of the key/value cache back, whatever else is named."""
        if "kv_cache" in tags:
            self.model_runner.release_cache()

    def execute_model(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput | None:
        """Runs the graph of one step."""
        # The library belongs to the process, whose engines may differ.
        self._library.set_batch_invariant(vllm_envs.VLLM_BATCH_INVARIANT)
        with ranks.told(self._group):
            return self.model_runner.execute_model(scheduler_output)

    def sample_tokens(self, grammar_output: GrammarOutput | None) -> ModelRunnerOutput:
        """Samples the tokens of the step that `execute_model` ran."""
        with ranks.told(self._group):
            return self.model_runner.sample_tokens(grammar_output)

    def shutdown(self) -> None:
        """Leaves the other ranks: one that still waits for this one gets an error."""
        if hasattr(self, "_group"):
            self._group.leave()

    def take_draft_token_ids(self) -> DraftTokenIds | None:
        """The guesses for the next step, if speculative decoding is on."""
        return self.model_runner.take_draft_token_ids()

    def get_supported_tasks(self) -> tuple[str, ...]:
        """Text generation, or what the model's pooler does."""
        return self.model_runner.tasks()

    def add_lora(self, lora_request: LoRARequest) -> bool:
        """Reads an adapter; whether it is new. ValueError for one that does not fit."""
        return self._adapters().add(lora_request)

    def remove_lora(self, lora_id: int) -> bool:
        """Forgets an adapter; whether it was there."""
        return self._adapters().remove(lora_id)

    def pin_lora(self, lora_id: int) -> bool:
        """Keeps an adapter in memory."""
        return self._adapters().pin(lora_id)

    def list_loras(self) -> set[int]:
        """Ids of the adapters in memory."""
        return self._adapters().ids()

    def _adapters(self) -> LoraAdapters:
        if self.model_runner.adapters is None:
            raise RuntimeError("LoRA is off: start with --enable-lora")
        return self.model_runner.adapters

    def get_model(self) -> TorchModules:
        """vLLM inspects torch modules; there are none."""
        return self.model_runner.model

    def synchronize_device(self) -> None:
        """Every step ends with its logits computed, so nothing is in flight between steps."""

    def reset_encoder_cache(self) -> None:
        """Multimodal models are refused at start-up, so there is no encoder cache."""

    def profile(self, is_start: bool = True, profile_prefix: str | None = None, **_: Any) -> None:
        """Refuses: vLLM's torch profiler does not see MindSpore graphs."""
        raise NotImplementedError("profiling through vLLM is not supported by vllm-mindspore")

    def _join_ranks(self) -> None:
        parallel = self.parallel_config
        set_custom_all_reduce(False)
        init_distributed_environment(
            parallel.world_size, self.rank, self.distributed_init_method, self.local_rank, "gloo"
        )
        ensure_model_parallel_initialized(
            parallel.tensor_parallel_size, parallel.pipeline_parallel_size
        )

    def _make_cache(self, num_blocks: int) -> KVCache:
        shapes, block_size = self._backend.cache_shapes(), self.cache_config.block_size
        on_host = not self._compute_device.holds_caches
        return KVCache(shapes, num_blocks, block_size, on_host=on_host)

    def _cache_cap(self, page_bytes: int) -> int:
        limit = envs.KV_CACHE_MAX_GB
        if self._compute_device.holds_caches and not limit.is_set():
            return self._compute_device.free_memory()
        block_size, longest = self.cache_config.block_size, self.model_config.max_model_len
        return kv_cache.cache_cap(int(limit.get() * _GIB), page_bytes, block_size, longest)

    def _measure_activations(self) -> int:
        """Memory of a step of the largest size: what the graphs' outputs occupy (measured), and
        unless that is memory of their own the sampler's copies of the logits and the persistent
        batch's token table (computed)."""
        scheduler = self.scheduler_config
        tokens = scheduler.max_num_batched_tokens
        requests = min(scheduler.max_num_seqs, tokens)
        rows = 0 if self._pools else requests * (1 + self.vllm_config.num_speculative_tokens)
        rows = min(rows, tokens)
        self._backend.bind_caches(*self._make_cache(1).buffers())
        outputs = self._compute_device.peak_of(lambda: self._dummy_step(tokens, requests, rows))
        if self._compute_device.holds_caches:
            return outputs
        logits = rows * self.model_config.get_vocab_size() * 4
        gathered = logits if self._group.count > 1 else 0
        table = scheduler.max_num_seqs * self.model_config.max_model_len * _TOKEN_TABLE_BYTES
        return int(outputs + gathered + _SAMPLER_COPIES * logits + table)

    @property
    def _pools(self) -> bool:
        return bool(self.model_config.runner_type == "pooling")

    def _dummy_step(self, tokens: int, requests: int, rows: int) -> None:
        inputs = dummy_step_inputs(tokens, requests, self.cache_config.block_size)
        adapters = None if self.lora_config is None else np.full(tokens, -1, np.int32)
        hidden = self._backend.forward(inputs, adapters)
        if self._pools:
            self._backend.hidden_states(hidden)
        else:
            self._backend.logits(hidden, np.arange(rows, dtype=np.int32))
