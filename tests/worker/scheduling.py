# SPDX-License-Identifier: Apache-2.0
"""Hand-made scheduler output: what vLLM's scheduler sends to a worker for one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vllm import SamplingParams
from vllm.v1.core.sched.output import CachedRequestData, NewRequestData, SchedulerOutput

GREEDY = SamplingParams(temperature=0)


@dataclass(frozen=True)
class Known:
    """What the scheduler says about a request it has sent before."""

    req_id: str
    scheduled: int
    computed: int
    outputs: int
    blocks: list[int] | None = None
    resumed: bool = False


def new(
    req_id: str,
    prompt: list[int],
    blocks: list[int],
    *,
    params: SamplingParams = GREEDY,
    computed: int = 0,
) -> NewRequestData:
    """A request that is scheduled for the first time."""
    return NewRequestData(
        req_id=req_id,
        prompt_token_ids=prompt,
        mm_features=[],
        sampling_params=params,
        pooling_params=None,
        block_ids=(blocks,),
        num_computed_tokens=computed,
        lora_request=None,
    )


def step(
    *requests: NewRequestData | Known,
    counts: dict[str, int] | None = None,
    finished: tuple[str, ...] = (),
    drafts: dict[str, list[int]] | None = None,
    **fields: Any,
) -> SchedulerOutput:
    """One step of these requests. New ones have all their tokens scheduled unless `counts`
    says how many; `fields` are other fields of SchedulerOutput."""
    fresh = [request for request in requests if isinstance(request, NewRequestData)]
    known = [request for request in requests if isinstance(request, Known)]
    scheduled = {data.req_id: data.prompt_len - data.num_computed_tokens for data in fresh}
    scheduled |= {request.req_id: request.scheduled for request in known} | (counts or {})
    return SchedulerOutput(
        scheduled_new_reqs=fresh,
        scheduled_cached_reqs=CachedRequestData(
            req_ids=[request.req_id for request in known],
            resumed_req_ids={request.req_id for request in known if request.resumed},
            new_token_ids=[],
            all_token_ids={},
            new_block_ids=[(r.blocks,) if r.blocks is not None else None for r in known],
            num_computed_tokens=[request.computed for request in known],
            num_output_tokens=[request.outputs for request in known],
        ),
        num_scheduled_tokens=scheduled,
        total_num_scheduled_tokens=sum(scheduled.values()),
        scheduled_spec_decode_tokens=drafts or {},
        scheduled_encoder_inputs={},
        finished_req_ids=set(finished),
        free_encoder_mm_hashes=[],
        **fields,
    )
