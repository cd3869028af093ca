# SPDX-License-Identifier: Apache-2.0
"""One step: scheduler output -> arrays -> graph -> logits -> sampled tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from vllm import envs as vllm_envs
from vllm.config import VllmConfig
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.outputs import (
    EMPTY_MODEL_RUNNER_OUTPUT,
    DraftTokenIds,
    LogprobsTensors,
    ModelRunnerOutput,
)
from vllm.v1.structured_output.utils import apply_grammar_bitmask

from vllm_mindspore.device.rank_group import RankGroup
from vllm_mindspore.model_executor.backends.base import Backend
from vllm_mindspore.worker.input_batch import StepInputs, build_step_inputs
from vllm_mindspore.worker.kv_cache import KVCache
from vllm_mindspore.worker.lora import LoraAdapters
from vllm_mindspore.worker.pooling import Pooling
from vllm_mindspore.worker.ranks import share_tokens
from vllm_mindspore.worker.requests import Requests
from vllm_mindspore.worker.sampler import HostSampler, PromptLogprobs, Sampled, sample
from vllm_mindspore.worker.speculation import NgramProposer

if TYPE_CHECKING:
    from mindspore import Tensor


@dataclass(frozen=True)
class _Step:
    """A step between its graph call and its sampling."""

    scheduled: SchedulerOutput
    inputs: StepInputs
    drafts: list[list[int]]
    hidden: Tensor
    logits: torch.Tensor | None
    """None on ranks that do not sample."""


class MindSporeModelRunner:
    """Drives a backend with vLLM's scheduler protocol."""

    def __init__(
        self, config: VllmConfig, backend: Backend, group: RankGroup | None = None
    ) -> None:
        """`group`: that of this process, if several ranks have the model together."""
        self._group = group if group and group.count > 1 else None
        self._config = config
        self._backend = backend
        self._mode = config.model_config.logprobs_mode
        self._sampler = HostSampler(
            logprobs_mode=self._mode, use_fp64_gumbel=config.model_config.use_fp64_gumbel
        )
        self._step: _Step | None = None
        speculation = config.speculative_config
        self._proposer = NgramProposer.from_config(speculation) if speculation else None
        self._proposed: DraftTokenIds | None = None
        pools = config.model_config.runner_type == "pooling"
        self._pooling = Pooling(config, backend.classifier) if pools else None
        self.adapters: LoraAdapters | None = None
        if config.lora_config is not None:
            assert backend.adapters is not None
            dtype = config.model_config.dtype
            self.adapters = LoraAdapters(config.lora_config, backend.adapters, dtype)
        self.model = TorchModules()

    def tasks(self) -> tuple[str, ...]:
        """What requests may ask for."""
        return self._pooling.tasks() if self._pooling else ("generate",)

    def bind_cache(self, cache: KVCache) -> None:
        """Starts with an empty batch over the given cache."""
        self._cache = cache
        self._backend.bind_caches(*cache.buffers())
        self._requests = Requests(self._config, cache.block_size)
        self._prompt_logprobs = PromptLogprobs(self._sampler, self._requests, self._mode)

    def release_cache(self) -> None:
        """Gives the memory of the key/value cache back; what it held is gone."""
        self._cache.release()

    def execute_model(self, scheduled: SchedulerOutput) -> ModelRunnerOutput | None:
        """Runs the graph. None means that `sample_tokens` must follow."""
        if scheduled.kv_cache_block_copies:
            self._cache.copy_blocks(scheduled.kv_cache_block_copies)
        if self._pooling:
            self._pooling.begin(scheduled)
        self._requests.update(scheduled)
        if scheduled.total_num_scheduled_tokens == 0:
            return EMPTY_MODEL_RUNNER_OUTPUT
        inputs = self._step_inputs(scheduled)
        hidden = self._backend.forward(inputs, self._adapter_slots(inputs))
        if self._pooling:
            states = self._backend.hidden_states(hidden)
            if self._group and self._group.index > 0:
                return EMPTY_MODEL_RUNNER_OUTPUT  # vLLM takes that of rank 0
            return self._pooling.pool(
                self._requests, states, inputs.query_lens, inputs.context_lens
            )
        drafts = self._requests.drafts(scheduled)
        sampled_rows = inputs.last_rows(np.array([1 + len(draft) for draft in drafts]))
        logits = self._backend.logits(hidden, sampled_rows)
        self._step = _Step(scheduled, inputs, drafts, hidden, logits)
        return None

    def sample_tokens(self, grammar: GrammarOutput | None) -> ModelRunnerOutput:
        """Samples from the logits of the last `execute_model`."""
        if self._step is None:
            return EMPTY_MODEL_RUNNER_OUTPUT
        step, self._step = self._step, None
        if step.logits is None:
            return self._follow(step)
        batch = self._requests.batch
        nans = _nans_in_logits(step.logits, batch.req_ids, step.drafts)
        if grammar is not None:
            apply_grammar_bitmask(step.scheduled, grammar, batch, step.logits)
        discarded = self._requests.unfinished_prompts(step.inputs.context_lens)
        output = sample(self._sampler, self._requests, step.logits, step.drafts, discarded)
        if self._group:
            share_tokens(self._group, output.token_ids, step.drafts)
        prompt_logprobs = self._score_prompts(step)
        self._propose(output, step.scheduled.num_spec_tokens_to_schedule)
        return ModelRunnerOutput(
            req_ids=batch.req_ids.copy(),
            req_id_to_index=batch.req_id_to_index.copy(),
            sampled_token_ids=output.token_ids,
            logprobs=output.logprobs,
            prompt_logprobs_dict=prompt_logprobs,
            num_nans_in_logits=nans,
        )

    def _follow(self, step: _Step) -> ModelRunnerOutput:
        """Records what rank 0 has sampled, and takes part in what it computes besides."""
        assert self._group is not None
        for row, tokens in enumerate(share_tokens(self._group, None, step.drafts)):
            for token in tokens:
                self._requests.append(row, token)
        self._score_prompts(step)
        return EMPTY_MODEL_RUNNER_OUTPUT

    def _score_prompts(self, step: _Step) -> dict[str, LogprobsTensors | None]:
        return self._prompt_logprobs.collect(
            step.scheduled,
            step.inputs.query_starts,
            lambda rows: self._backend.logits(step.hidden, rows),
        )

    def take_draft_token_ids(self) -> DraftTokenIds | None:
        """The guesses for the next step, once."""
        proposed, self._proposed = self._proposed, None
        return proposed

    def _propose(self, output: Sampled, count: int) -> None:
        """Guesses up to `count` tokens for every request that has just got a token."""
        if self._proposer is None:
            return
        drafts = [
            self._proposer.propose(self._requests.tokens(row), count) if tokens else []
            for row, tokens in enumerate(output.token_ids)
        ]
        self._proposed = DraftTokenIds(self._requests.batch.req_ids.copy(), drafts)

    def _adapter_slots(self, inputs: StepInputs) -> np.ndarray | None:
        """int32 [T], with the adapters of this step read and in place."""
        if self.adapters is None:
            return None
        slots = self.adapters.activate(self._requests.adapters())
        return np.repeat(slots, inputs.query_lens)

    def _step_inputs(self, scheduled: SchedulerOutput) -> StepInputs:
        batch = self._requests.batch
        count = batch.num_reqs
        return build_step_inputs(
            batch.token_ids_cpu[:count],
            batch.block_table[0].get_numpy_array()[:count],
            batch.num_computed_tokens_cpu[:count],
            self._requests.scheduled_tokens(scheduled),
            self._cache.block_size,
        )


def _nans_in_logits(
    logits: torch.Tensor, req_ids: list[str], drafts: list[list[int]]
) -> dict[str, int] | None:
    """How many of each request's logits are NaN; None unless asked for.

    logits: fp32, 1 + len(its drafts) rows of each request, one request after the other.

    VLLM_COMPUTE_NANS_IN_LOGITS asks for the numbers, VLLM_RAISE_ON_LOGIT_NANS for an error too.

    Raises:
        RuntimeError: there are some and the user wants that to be an error.
    """
    if not vllm_envs.VLLM_COMPUTE_NANS_IN_LOGITS:
        return None
    starts = np.cumsum([0, *(1 + len(draft) for draft in drafts[:-1])])
    counts = np.add.reduceat(logits.isnan().sum(dim=-1).numpy(), starts)
    nans = dict(zip(req_ids, counts.tolist(), strict=True))
    if vllm_envs.VLLM_RAISE_ON_LOGIT_NANS and any(nans.values()):
        found = ", ".join(f"{count} of request {name}" for name, count in nans.items() if count)
        raise RuntimeError(
            f"Logits are NaN: {found}, of {logits.shape[-1]} each. Check the checkpoint, or unset "
            "VLLM_RAISE_ON_LOGIT_NANS."
        )
    return nans


class TorchModules:
    """Stands where vLLM expects the torch model: LLMEngine walks its modules when it closes."""

    def modules(self) -> Iterator[Any]:
        """There are no torch modules."""
        return iter(())
