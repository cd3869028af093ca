# SPDX-License-Identifier: Apache-2.0
"""A rank's requests follow the scheduler: hand-made steps, and vLLM's own scheduler."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from tests.conftest import Configure
from tests.worker.scheduling import Known, new, step
from vllm_mindspore.worker.requests import Requests

BLOCK = 16


@pytest.fixture
def requests(config: VllmConfig) -> Requests:
    """No requests yet."""
    return Requests(config, BLOCK)


def tokens(requests: Requests, req_id: str) -> list[int]:
    """The tokens of a request's batch row."""
    row = requests.batch.req_id_to_index[req_id]
    known = int(requests.batch.num_tokens_no_spec[row])
    return list(requests.batch.token_ids_cpu[row, :known])


def blocks(requests: Requests, req_id: str) -> list[int]:
    """The block ids of a request's batch row."""
    table = requests.batch.block_table[0]
    row = requests.batch.req_id_to_index[req_id]
    return list(table.get_numpy_array()[row, : table.num_blocks_per_row[row]])


def sample(requests: Requests, **sampled: int) -> None:
    """Appends a sampled token to each named request."""
    for req_id, token in sampled.items():
        requests.append(requests.batch.req_id_to_index[req_id], token)


def test_new_requests_get_rows_in_order(requests: Requests) -> None:
    output = step(new("a", [1, 2, 3], [7]), new("b", [4, 5], [8, 9], computed=1))
    requests.update(output)
    assert requests.batch.req_ids == ["a", "b"]
    assert (tokens(requests, "a"), tokens(requests, "b")) == ([1, 2, 3], [4, 5])
    assert (blocks(requests, "a"), blocks(requests, "b")) == ([7], [8, 9])
    assert list(requests.batch.num_computed_tokens_cpu[:2]) == [0, 1]
    counts = requests.scheduled_tokens(output)
    assert counts.tolist() == [3, 1]
    assert counts.dtype == np.int32


def test_a_running_request_grows_in_its_row(requests: Requests) -> None:
    requests.update(step(new("a", [1, 2], [7]), new("b", [3], [8])))
    sample(requests, a=10, b=11)
    requests.update(
        step(Known("a", 1, computed=2, outputs=1, blocks=[5, 6]), Known("b", 1, 1, outputs=1))
    )
    assert tokens(requests, "a") == [1, 2, 10]
    assert requests.states["a"].output_token_ids == [10]
    assert blocks(requests, "a") == [7, 5, 6]
    assert requests.states["a"].block_ids == ([7, 5, 6],)
    assert blocks(requests, "b") == [8]
    assert list(requests.batch.num_computed_tokens_cpu[:2]) == [2, 1]


def test_a_finished_request_leaves_and_the_last_row_takes_its_place(requests: Requests) -> None:
    requests.update(step(*(new(name, [i, i], [i]) for i, name in enumerate("abc", start=1))))
    sample(requests, a=10, b=20, c=30)
    running = [Known(name, 1, computed=2, outputs=1) for name in "bc"]
    output = step(*running, finished=("a",))
    requests.update(output)
    assert requests.states.keys() == {"b", "c"}
    assert requests.batch.req_ids == ["c", "b"]
    assert (tokens(requests, "b"), tokens(requests, "c")) == ([2, 2, 20], [3, 3, 30])
    assert (blocks(requests, "b"), blocks(requests, "c")) == ([2], [3])
    assert requests.scheduled_tokens(output).tolist() == [1, 1]


def test_the_last_finished_request_leaves_an_empty_batch(requests: Requests) -> None:
    requests.update(step(new("a", [1], [7])))
    requests.update(step(finished=("a",)))
    assert (requests.batch.num_reqs, requests.states) == (0, {})


def test_a_request_that_pauses_keeps_its_state_and_returns(requests: Requests) -> None:
    """Running requests that get no tokens in a step give up their row, not their blocks."""
    requests.update(step(new("a", [1, 2], [7]), new("b", [3], [8])))
    sample(requests, a=10, b=11)
    requests.update(step(Known("b", 1, computed=1, outputs=1)))
    assert requests.batch.req_ids == ["b"]
    sample(requests, b=12)
    requests.update(step(Known("a", 1, 2, 1, blocks=[9]), Known("b", 1, computed=2, outputs=2)))
    assert (tokens(requests, "a"), tokens(requests, "b")) == ([1, 2, 10], [3, 11, 12])
    assert blocks(requests, "a") == [7, 9]
    assert requests.batch.num_computed_tokens_cpu[requests.batch.req_id_to_index["a"]] == 2


def test_a_preempted_request_resumes_with_new_blocks_and_its_tokens(requests: Requests) -> None:
    requests.update(step(new("a", [1, 2], [7, 6]), new("b", [3], [8])))
    sample(requests, a=10, b=11)
    requests.update(step(Known("b", 1, computed=1, outputs=1)))
    requests.update(step(Known("a", 3, computed=0, outputs=1, blocks=[4], resumed=True)))
    assert requests.batch.req_ids == ["a"]
    assert tokens(requests, "a") == [1, 2, 10]
    assert blocks(requests, "a") == [4]
    assert requests.states["a"].block_ids == ([4],)
    assert requests.batch.num_computed_tokens_cpu[0] == 0


def test_a_reset_resumes_without_the_token_in_flight(requests: Requests) -> None:
    """reset_prefix_cache(reset_running_requests=True): preempted and resumed in one step, and
    the token of the step in flight is sampled again."""
    requests.update(step(new("a", [1, 2], [7])))
    sample(requests, a=10)
    requests.update(step(Known("a", 1, computed=2, outputs=1)))
    sample(requests, a=11)
    requests.update(step(Known("a", 3, computed=0, outputs=1, blocks=[5], resumed=True)))
    assert tokens(requests, "a") == [1, 2, 10]
    assert blocks(requests, "a") == [5]
    sample(requests, a=12)
    assert tokens(requests, "a") == [1, 2, 10, 12]
    assert requests.states["a"].output_token_ids == [10, 12]


def test_tokens_the_scheduler_discarded_are_forgotten_in_place(requests: Requests) -> None:
    params = SamplingParams(temperature=0, presence_penalty=1.0)
    requests.update(step(new("a", [1, 2], [7], params=params)))
    for token in (10, 11, 12):
        sample(requests, a=token)
    requests.update(step(Known("a", 1, computed=2, outputs=1)))
    assert tokens(requests, "a") == [1, 2, 10]
    assert requests.batch.sampling_metadata.output_token_ids == [[10]], "penalties see them"
    sample(requests, a=13)
    assert tokens(requests, "a") == [1, 2, 10, 13]


def test_placeholders_of_asynchronous_scheduling_discard_nothing(requests: Requests) -> None:
    """The scheduler counts the token in flight before it has seen it."""
    requests.update(step(new("a", [1, 2], [7])))
    sample(requests, a=10)
    requests.update(step(Known("a", 1, computed=2, outputs=2)))
    assert tokens(requests, "a") == [1, 2, 10]


def test_a_session_goes_on_with_its_output_in_the_prompt(requests: Requests) -> None:
    params = SamplingParams(temperature=1, seed=5)
    requests.update(step(new("a", [1, 2], [7], params=params)))
    generator = requests.states["a"].generator
    sample(requests, a=10)
    longer = new("a", [1, 2, 10, 20], [7, 8], params=params, computed=3)
    requests.update(step(longer))
    assert requests.batch.req_ids == ["a"]
    assert tokens(requests, "a") == [1, 2, 10, 20]
    assert blocks(requests, "a") == [7, 8]
    assert requests.states["a"].output_token_ids == []
    assert requests.batch.num_computed_tokens_cpu[0] == 3
    assert requests.batch.num_prompt_tokens[0] == 4
    assert requests.states["a"].generator is generator, "random numbers go on"
    assert requests.batch.generators == {0: generator}


def test_a_session_that_goes_on_is_not_scored_again(requests: Requests) -> None:
    """Its step starts in the middle of the new prompt: the scores before that do not exist."""
    params = SamplingParams(temperature=0, prompt_logprobs=0)
    requests.update(step(new("a", [1, 2], [7], params=params)))
    requests.unscored_prompts.discard("a")
    requests.update(step(new("a", [1, 2, 3], [7], params=params, computed=2)))
    assert requests.unscored_prompts == set()


def test_a_finished_id_that_comes_again_is_another_request(requests: Requests) -> None:
    params = SamplingParams(temperature=1, seed=5, prompt_logprobs=1)
    requests.update(step(new("a", [1, 2], [7], params=params)))
    old = requests.states["a"]
    sample(requests, a=10)
    requests.update(step(new("a", [3], [8], params=params), finished=("a",)))
    assert (tokens(requests, "a"), blocks(requests, "a")) == ([3], [8])
    assert requests.states["a"].generator is not old.generator
    assert requests.unscored_prompts == {"a"}


def test_seeded_requests_own_a_generator_that_follows_their_row(requests: Requests) -> None:
    seeded = SamplingParams(temperature=1, seed=5)
    free = SamplingParams(temperature=1)
    requests.update(
        step(new("a", [1], [1]), new("b", [1], [2], params=free), new("c", [1], [3], params=seeded))
    )
    generator = requests.batch.generators[2]
    assert requests.batch.generators == {2: generator}
    expected = torch.Generator().manual_seed(5)
    assert torch.equal(torch.rand(4, generator=generator), torch.rand(4, generator=expected))
    requests.update(step(Known("b", 1, 1, 0), Known("c", 1, 1, 0), finished=("a",)))
    assert requests.batch.generators == {requests.batch.req_id_to_index["c"]: generator}


def test_prompts_to_score_are_forgotten_with_their_request(requests: Requests) -> None:
    params = SamplingParams(temperature=0, prompt_logprobs=0)
    requests.update(step(new("a", [1], [1], params=params), new("b", [1], [2])))
    assert requests.unscored_prompts == {"a"}
    requests.update(step(Known("b", 1, 1, 0), finished=("a",)))
    assert requests.unscored_prompts == set()


def test_unfinished_prompts_are_rows_with_known_tokens_left(requests: Requests) -> None:
    """A resumed request recomputes its output too before it samples again."""
    requests.update(
        step(new("a", [1] * 5, [1]), new("b", [2] * 5, [2]), new("c", [3], [3]), counts={"a": 3})
    )
    assert requests.unfinished_prompts(np.array([3, 5, 1])).tolist() == [0]
    sample(requests, b=20)
    assert requests.unfinished_prompts(np.array([5, 5, 1])).tolist() == [1]


class Served:
    """vLLM's scheduler with `Requests` as its worker, in the order of vLLM's engine loop: with
    asynchronous scheduling a step is scheduled before the scheduler sees the one before."""

    def __init__(self, config: VllmConfig, num_blocks: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.requests = Requests(config, BLOCK)
        spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=8, dtype=torch.float32)
        cache = KVCacheConfig(num_blocks, [], [KVCacheGroupSpec(["layer"], spec)])
        self.asynchronous = bool(config.scheduler_config.async_scheduling)
        config.cache_config.num_gpu_blocks = num_blocks
        self.scheduler = (AsyncScheduler if self.asynchronous else Scheduler)(
            config, cache, StructuredOutputManager(config), BLOCK
        )
        init_none_hash(sha256)
        self.hasher = get_request_block_hasher(BLOCK, sha256)
        self.in_flight: deque[tuple[SchedulerOutput, ModelRunnerOutput]] = deque()
        self.resumed = 0

    def add(self, req_id: str, prompt_tokens: int, max_tokens: int) -> None:
        prompt = self.rng.integers(0, 1000, prompt_tokens).tolist()
        params = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
        self.scheduler.add_request(Request(req_id, prompt, params, None, block_hasher=self.hasher))

    def step(self) -> None:
        """Schedules, executes and, with the delay of the engine loop, reports a step."""
        output = self.scheduler.schedule()
        self.requests.update(output)
        self.resumed += len(output.scheduled_cached_reqs.resumed_req_ids)
        self.check(output)
        self.in_flight.append((output, self.sampled(output)))
        if len(self.in_flight) > int(self.asynchronous):
            self.scheduler.update_from_output(*self.in_flight.popleft())

    def finish(self) -> None:
        """Steps until the worker has forgotten every request."""
        for _ in range(3000):
            self.step()
            if not self.requests.states:
                return
        raise AssertionError(f"still there: {self.requests.states}")

    def sampled(self, output: SchedulerOutput) -> ModelRunnerOutput:
        """A random token for each request whose known tokens are all computed."""
        if not output.total_num_scheduled_tokens:
            return EMPTY_MODEL_RUNNER_OUTPUT
        batch = self.requests.batch
        computed = batch.num_computed_tokens_cpu[: batch.num_reqs]
        contexts = computed + self.requests.scheduled_tokens(output)
        result = [[int(token)] for token in self.rng.integers(0, 1000, batch.num_reqs)]
        for row in self.requests.unfinished_prompts(contexts):
            result[row] = []
        for row, token_ids in enumerate(result):
            for token_id in token_ids:
                self.requests.append(row, token_id)
        return ModelRunnerOutput(batch.req_ids.copy(), batch.req_id_to_index.copy(), result)

    def check(self, output: SchedulerOutput) -> None:
        """The batch holds what the scheduler holds, and every token it has scheduled."""
        batch = self.requests.batch
        assert set(batch.req_ids) == output.num_scheduled_tokens.keys()
        for req_id, count in output.num_scheduled_tokens.items():
            expected = list(self.scheduler.requests[req_id].all_token_ids)
            found = tokens(self.requests, req_id)
            assert found[: len(expected)] == expected
            assert len(found) - len(expected) <= len(self.in_flight)
            assert found == (
                self.requests.states[req_id].prompt_token_ids
                + self.requests.states[req_id].output_token_ids
            )
            row = batch.req_id_to_index[req_id]
            assert batch.num_computed_tokens_cpu[row] + count <= len(found)
            (ids,) = self.scheduler.kv_cache_manager.get_block_ids(req_id)
            assert blocks(self.requests, req_id) == ids == self.requests.states[req_id].block_ids[0]


@pytest.mark.parametrize("asynchronous", [True, False])
def test_requests_follow_the_scheduler(configure: Configure, asynchronous: bool) -> None:
    """Random arrivals, aborts, resets and preemptions, until nothing is left."""
    config = configure(async_scheduling=asynchronous)
    resumed = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        served = Served(config, num_blocks=9, rng=rng)
        for number in range(12):
            served.add(f"r{number}", int(rng.integers(1, 60)), int(rng.integers(1, 40)))
            for _ in range(rng.integers(1, 12)):
                served.step()
            if rng.random() < 0.2:
                served.scheduler.reset_prefix_cache(reset_running_requests=True)
            if rng.random() < 0.2:
                victim = f"r{rng.integers(number + 1)}"
                served.scheduler.finish_requests(victim, RequestStatus.FINISHED_ABORTED)
        served.finish()
        resumed += served.resumed
    assert resumed > 20, "too few requests were preempted to be a test of it"
