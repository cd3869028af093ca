# SPDX-License-Identifier: Apache-2.0
"""From logits to tokens and log probabilities, with vLLM's own sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import LogprobsLists, LogprobsTensors, SamplerOutput
from vllm.v1.sample.sampler import Sampler
from vllm.v1.worker.gpu_input_batch import CachedRequestState, InputBatch

from vllm_mindspore.worker.requests import Requests

# Rows of prompt logits held at once: 256 rows of a 150k vocabulary are 154 MB.
_PROMPT_ROWS = 256

RowLogits = Callable[[np.ndarray], torch.Tensor | None]
"""int32 [R] rows of a step -> fp32 [R, vocab] logits; None on ranks that do not sample."""


class HostSampler(Sampler):
    """vLLM's sampler with the largest logit found by numpy, which takes a fraction of torch's time:
    `benchmarks/sampling.py` measures both."""

    @staticmethod
    def greedy_sample(logits: torch.Tensor) -> torch.Tensor:
        """int64 [B] of logits [B, vocab] in CPU memory; the first of equals, a NaN before all."""
        return torch.from_numpy(logits.numpy().argmax(axis=-1))


@dataclass(frozen=True)
class Sampled:
    """What one step sampled."""

    token_ids: list[list[int]]
    """New tokens of each batch row, none for a discarded one."""
    logprobs: LogprobsLists | None
    """Those of the new tokens, row after row, if any request wants them."""


def sample(
    sampler: Sampler,
    requests: Requests,
    logits: torch.Tensor,
    drafts: list[list[int]],
    discarded: np.ndarray,
) -> Sampled:
    """Samples each row's next tokens and records them in `requests`.

    logits: fp32, modified; for each row 1 + len(its drafts) positions, one row after the other.
    A row goes on to its next position while the sampled token equals the draft there, so every
    token is sampled from the same logits, with the same state, as without drafts; a draft is a
    certain guess, and this is its rejection sampling (https://arxiv.org/abs/2211.17192).
    `discarded` rows are sampled too, but neither recorded nor do they use up random numbers.
    """
    batch = requests.batch
    sizes = np.array([len(draft) for draft in drafts])
    starts = np.cumsum(sizes + 1) - (sizes + 1)
    pending = sorted(set(range(len(drafts))) - set(discarded.tolist()))
    sampled: list[list[int]] = [[] for _ in drafts]
    scores = []
    for position in range(int(sizes.max()) + 1):
        if position > 0:
            batch.refresh_metadata()
        # Without drafts logits are as they must be: 19 MB less to copy at 32 rows of Qwen3.
        rows = logits[starts + np.minimum(position, sizes)] if sizes.any() else logits
        output = _sample_position(sampler, batch, rows, pending)
        scores.append(output.logprobs_tensors)
        tokens = output.sampled_token_ids[:, 0].tolist()
        for row in pending:
            sampled[row].append(tokens[row])
            requests.append(row, tokens[row])
        pending = [row for row in pending if drafts[row][position : position + 1] == [tokens[row]]]
        if not pending:
            break
    return Sampled(sampled, _join_scores(scores, sampled))


def _sample_position(
    sampler: Sampler, batch: InputBatch, logits: torch.Tensor, pending: list[int]
) -> SamplerOutput:
    """One token for each row of logits [B, vocab]; random numbers move on in `pending` only."""
    idle = [batch.generators[row] for row in batch.generators.keys() - set(pending)]
    states = [generator.get_state() for generator in idle]
    output = sampler(logits=logits, sampling_metadata=batch.sampling_metadata)
    for generator, state in zip(idle, states, strict=True):
        generator.set_state(state)
    return output


def _join_scores(
    scores: list[LogprobsTensors | None], sampled: list[list[int]]
) -> LogprobsLists | None:
    """From one tensor of all rows per position to all positions of each row in turn."""
    present = [tensors for tensors in scores if tensors is not None]
    if not present:
        return None
    counts = [len(tokens) for tokens in sampled]
    order = [p * len(counts) + row for row, count in enumerate(counts) for p in range(count)]
    joined = LogprobsTensors.cat(present).filter(torch.tensor(order, dtype=torch.int64))
    return joined.tolists([0, *accumulate(counts)])


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
            found = logits(rows)
            if found is not None:
                self._score(state, start + offset, number, part, found)
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
