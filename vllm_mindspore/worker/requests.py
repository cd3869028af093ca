# SPDX-License-Identifier: Apache-2.0
"""The requests this rank knows and their rows in vLLM's persistent batch.

vLLM's scheduler sends differences (docs: vllm/v1/core/sched/output.py); this applies them.
"""

from __future__ import annotations

import numpy as np
import torch
from vllm.config import VllmConfig
from vllm.lora.request import LoRARequest
from vllm.sampling_params import SamplingParams, SamplingType
from vllm.v1.core.sched.output import CachedRequestData, NewRequestData, SchedulerOutput
from vllm.v1.sample.logits_processor import build_logitsprocs
from vllm.v1.worker.gpu_input_batch import CachedRequestState, InputBatch

_CPU = torch.device("cpu")


class Requests:
    """Keeps each request's tokens, block ids and sampling state in step with the scheduler."""

    def __init__(self, config: VllmConfig, block_size: int) -> None:
        self.states: dict[str, CachedRequestState] = {}
        # Requests whose prompt is still to be scored. A preempted or continued one is not
        # scored again.
        self.unscored_prompts: set[str] = set()
        self.batch = _persistent_batch(config, block_size)

    def update(self, output: SchedulerOutput) -> None:
        """Applies one step's differences: finished, preempted, new, running and resumed."""
        self._remove(output)
        added = [self._create(data) for data in output.scheduled_new_reqs]
        added += self._continue(output.scheduled_cached_reqs)
        for state in added:
            self.batch.add_request(state)
        self.batch.condense()
        self.batch.refresh_metadata()
        self._place_drafts(output)

    def scheduled_tokens(self, output: SchedulerOutput) -> np.ndarray:
        """int32 [B] tokens of each batch row in this step."""
        counts = [output.num_scheduled_tokens[req_id] for req_id in self.batch.req_ids]
        return np.array(counts, dtype=np.int32)

    def unfinished_prompts(self, context_lens: np.ndarray) -> np.ndarray:
        """Rows whose prompt goes on after this step: what is sampled for them is discarded."""
        known = np.array([self.states[req_id].num_tokens for req_id in self.batch.req_ids])
        return np.nonzero(context_lens < known)[0]

    def adapters(self) -> list[LoRARequest | None]:
        """The LoRA adapter of each batch row."""
        return [self.states[req_id].lora_request for req_id in self.batch.req_ids]

    def drafts(self, output: SchedulerOutput) -> list[list[int]]:
        """The draft tokens of each batch row in this step; -1 is a place without a guess."""
        scheduled = output.scheduled_spec_decode_tokens
        return [scheduled.get(req_id, []) for req_id in self.batch.req_ids]

    def tokens(self, row: int) -> np.ndarray:
        """int32 [T] prompt and sampled tokens of a batch row."""
        known: np.ndarray = self.batch.token_ids_cpu[row, : self.batch.num_tokens_no_spec[row]]
        return known

    def append(self, row: int, token_id: int) -> None:
        """Records the token sampled for a batch row."""
        end = int(self.batch.num_tokens_no_spec[row])
        self.batch.token_ids_cpu[row, end] = token_id
        self.batch.num_tokens_no_spec[row] = end + 1
        self.states[self.batch.req_ids[row]].output_token_ids.append(token_id)

    def _place_drafts(self, output: SchedulerOutput) -> None:
        """Puts the drafts behind the known tokens, where `append` will overwrite them."""
        for req_id, draft in output.scheduled_spec_decode_tokens.items():
            row = self.batch.req_id_to_index[req_id]
            start = int(self.batch.num_tokens_no_spec[row])
            # A place without a guess is computed with some token, and never accepted.
            self.batch.token_ids_cpu[row, start : start + len(draft)] = np.maximum(draft, 0)

    def _remove(self, output: SchedulerOutput) -> None:
        for req_id in output.finished_req_ids:
            self._forget(req_id)
        resumed = output.scheduled_cached_reqs.resumed_req_ids
        staying = output.num_scheduled_tokens.keys() - resumed
        for req_id in self.batch.req_id_to_index.keys() - staying:
            self.batch.remove_request(req_id)

    def _forget(self, req_id: str) -> None:
        self.states.pop(req_id, None)
        self.unscored_prompts.discard(req_id)
        self.batch.remove_request(req_id)

    def _create(self, data: NewRequestData) -> CachedRequestState:
        """A new request, or a streaming one that goes on: its output so far is in the prompt."""
        known = self.states.get(data.req_id)
        if known is not None:
            self.batch.remove_request(data.req_id)
        state = CachedRequestState(
            req_id=data.req_id,
            prompt_token_ids=data.prompt_token_ids,
            mm_features=data.mm_features,
            sampling_params=data.sampling_params,
            pooling_params=data.pooling_params,
            lora_request=data.lora_request,
            generator=known.generator if known else _generator(data.sampling_params),
            block_ids=data.block_ids,
            num_computed_tokens=data.num_computed_tokens,
            output_token_ids=[],
        )
        self.states[data.req_id] = state
        params = data.sampling_params
        if known is None and params is not None and params.prompt_logprobs is not None:
            self.unscored_prompts.add(data.req_id)
        return state

    def _continue(self, data: CachedRequestData) -> list[CachedRequestState]:
        """Updates known requests; returns those that are not in the batch and must be added.

        `data.all_token_ids` is for runners that do not know a token when the next step is
        scheduled; here every step is sampled, and recorded by `append`, before the next one runs.
        """
        absent = []
        for index, req_id in enumerate(data.req_ids):
            state = self.states[req_id]
            state.num_computed_tokens = data.num_computed_tokens[index]
            self._drop_discarded(state, data.num_output_tokens[index])
            new_blocks = data.new_block_ids[index]
            self._extend_blocks(state, new_blocks, resumed=req_id in data.resumed_req_ids)
            row = self.batch.req_id_to_index.get(req_id)
            if row is None:
                absent.append(state)
                continue
            self.batch.num_computed_tokens_cpu[row] = state.num_computed_tokens
            if new_blocks is not None:
                self.batch.block_table.append_row(new_blocks, row)
        return absent

    def _drop_discarded(self, state: CachedRequestState, num_output_tokens: int) -> None:
        """Forgets sampled tokens that the scheduler did not keep."""
        if num_output_tokens >= len(state.output_token_ids):
            return
        del state.output_token_ids[num_output_tokens:]
        row = self.batch.req_id_to_index.get(state.req_id)
        if row is not None:
            self.batch.num_tokens_no_spec[row] = state.num_tokens

    def _extend_blocks(
        self,
        state: CachedRequestState,
        new_blocks: tuple[list[int], ...] | None,
        *,
        resumed: bool,
    ) -> None:
        if new_blocks is None:
            return
        if resumed:
            state.block_ids = new_blocks
            return
        for blocks, new in zip(state.block_ids, new_blocks, strict=True):
            blocks.extend(new)


def _persistent_batch(config: VllmConfig, block_size: int) -> InputBatch:
    model, scheduler = config.model_config, config.scheduler_config
    processors = build_logitsprocs(
        config, _CPU, False, model.runner_type == "pooling", model.logits_processors or ()
    )
    return InputBatch(
        max_num_reqs=scheduler.max_num_seqs,
        max_model_len=model.max_model_len,
        max_num_batched_tokens=scheduler.max_num_batched_tokens,
        device=_CPU,
        vocab_size=model.get_vocab_size(),
        block_sizes=[block_size],
        max_num_blocks_per_req=[-(-model.max_model_len // block_size)],
        logitsprocs=processors,
        logitsprocs_need_output_token_ids=bool(model.logits_processors),
        is_pooling_model=model.runner_type == "pooling",
        reasoning_config=config.reasoning_config,
    )


def _generator(params: SamplingParams | None) -> torch.Generator | None:
    """The request's own random numbers, if it has a seed."""
    if params is None or params.sampling_type != SamplingType.RANDOM_SEED:
        return None
    generator = torch.Generator(device=_CPU)
    generator.manual_seed(params.seed)
    return generator
