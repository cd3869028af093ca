# SPDX-License-Identifier: Apache-2.0
"""From logits to tokens and log probabilities, with vLLM's own sampler on torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.outputs import LogprobsTensors, SamplerOutput
from vllm.v1.sample.sampler import Sampler
from vllm.v1.structured_output.utils import apply_grammar_bitmask
from vllm.v1.worker.gpu_input_batch import CachedRequestState, InputBatch

from vllm_mindspore.worker.requests import Requests

# Rows of prompt logits held at once: 256 rows of a 150k vocabulary are 154 MB.
_PROMPT_ROWS = 256

RowLogits = Callable[[np.ndarray], torch.Tensor]
"""int32 [R] rows of a step -> fp32 [R, vocab] logits."""


def sample(
    sampler: Sampler,
    batch: InputBatch,
    logits: torch.Tensor,
    discarded: np.ndarray,
    scheduled: SchedulerOutput,
    grammar: GrammarOutput | None,
) -> SamplerOutput:
    """Samples one token per row of logits, fp32 [B, vocab], which is modified.

    `discarded` rows are sampled too, but leave their random generators as they were.
    """
    if grammar is not None:
        apply_grammar_bitmask(scheduled, grammar, batch, logits)
    generators = [batch.generators[row] for row in discarded.tolist() if row in batch.generators]
    states = [generator.get_state() for generator in generators]
    output = sampler(logits=logits, sampling_metadata=batch.sampling_metadata)
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
    return output


class PromptLogprobs:
    """Collects log probabilities of prompt tokens over the steps of their prefill."""

    def __init__(self, sampler: Sampler, requests: Requests, logprobs_mode: str) -> None:
        self._sampler = sampler
        self._requests = requests
        self._raw_scores = logprobs_mode.endswith("logits")

    def collect(
        self, scheduled: SchedulerOutput, query_starts: np.ndarray, logits: RowLogits
    ) -> dict[str, LogprobsTensors | None]:
        """Scores this step's prompt tokens; returns those requests whose prompt is complete."""
        complete: dict[str, LogprobsTensors | None] = {}
        for req_id, row in self._requests.batch.req_id_to_index.items():
            if req_id not in self._requests.unscored_prompts:
                continue
            state = self._requests.states[req_id]
            count = scheduled.num_scheduled_tokens[req_id]
            if self._collect_request(state, int(query_starts[row]), count, logits):
                complete[req_id] = state.in_progress_prompt_logprobs_cpu
                self._requests.unscored_prompts.discard(req_id)
                state.in_progress_prompt_logprobs_cpu = None
        return complete

    def _collect_request(
        self, state: CachedRequestState, first_row: int, count: int, logits: RowLogits
    ) -> bool:
        """Scores `count` tokens of a request; whether its prompt is complete."""
        assert state.prompt_token_ids is not None
        start = state.num_computed_tokens
        remaining = len(state.prompt_token_ids) - (start + 1)
        number = self._number(state)
        if state.in_progress_prompt_logprobs_cpu is None:
            size = len(state.prompt_token_ids) - 1
            state.in_progress_prompt_logprobs_cpu = LogprobsTensors.empty_cpu(size, number + 1)
        targets = torch.tensor(state.prompt_token_ids[start + 1 : start + 1 + count])
        for offset in range(0, min(count, remaining), _PROMPT_ROWS):
            part = targets[offset : offset + _PROMPT_ROWS]
            rows = np.arange(len(part), dtype=np.int32) + first_row + offset
            self._score(state, start + offset, number, part, logits(rows))
        return bool(count > remaining)

    def _score(
        self,
        state: CachedRequestState,
        start: int,
        number: int,
        targets: torch.Tensor,
        logits: torch.Tensor,
    ) -> None:
        scores = logits if self._raw_scores else self._sampler.compute_logprobs(logits)
        found = self._sampler.gather_logprobs(scores, number, targets)
        collected = state.in_progress_prompt_logprobs_cpu
        assert collected is not None
        part = slice(start, start + len(targets))
        collected.logprob_token_ids[part].copy_(found.logprob_token_ids)
        collected.logprobs[part].copy_(found.logprobs)
        collected.selected_token_ranks[part].copy_(found.selected_token_ranks)

    def _number(self, state: CachedRequestState) -> int:
        """How many log probabilities per token the request wants; -1 means all."""
        assert state.sampling_params is not None
        number = state.sampling_params.prompt_logprobs
        assert number is not None
        return self._requests.batch.vocab_size if number == -1 else int(number)
