# SPDX-License-Identifier: Apache-2.0
"""Steps of a real runner over a model whose next token is arithmetic: the backend protocol on
numpy and torch, so that every array the runner hands over can be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.core.kv_cache_utils import KVCacheBlockCopy
from vllm.v1.core.sched.output import GrammarOutput
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT

from tests.worker.scheduling import Known, new, step
from vllm_mindspore.model_executor.backends.base import CacheShape
from vllm_mindspore.worker.input_batch import StepInputs
from vllm_mindspore.worker.kv_cache import KVCache
from vllm_mindspore.worker.model_runner import MindSporeModelRunner

BLOCK, NUM_BLOCKS = 16, 8
VOCAB = 2048


def next_token(token: int, position: int) -> int:
    """What the model below says after a token."""
    return (31 * token + 7 * position + 5) % VOCAB


class ArithmeticBackend:
    """A hidden state is (token, position); its largest logit is at `next_token`."""

    weight_bytes = 0

    def __init__(self) -> None:
        self.steps: list[StepInputs] = []
        self.marks: list[list[float]] = []

    def load(self) -> None:
        """There are no weights."""

    def cache_shapes(self) -> list[CacheShape]:
        """Two layers."""
        return [CacheShape(f"layer.{index}", 1, 8, torch.float32) for index in range(2)]

    def bind_caches(
        self, key_caches: Sequence[torch.Tensor], value_caches: Sequence[torch.Tensor]
    ) -> None:
        """Keeps the caches."""
        self.caches = [*key_caches, *value_caches]

    def forward(self, inputs: StepInputs, adapters: np.ndarray | None = None) -> Any:
        """Records the step, and of each block in the first cache the first value."""
        self.steps.append(inputs)
        self.marks.append(self.caches[0][:, 0, 0, 0].tolist())
        return np.stack([inputs.token_ids, inputs.positions], axis=1)

    def logits(self, hidden: Any, rows: np.ndarray) -> torch.Tensor:
        """fp32 [R, vocab], falling with the distance to `next_token`."""
        tokens = [next_token(int(token), int(position)) for token, position in hidden[rows]]
        return -(torch.arange(VOCAB)[None] - torch.tensor(tokens)[:, None]).abs().float()


@dataclass(frozen=True)
class Running:
    """A runner with its collaborators."""

    runner: MindSporeModelRunner
    backend: ArithmeticBackend
    cache: KVCache

    def run(self, *args: Any, **options: Any) -> Any:
        """One step, both halves; arguments as `scheduling.step` has them."""
        assert self.runner.execute_model(step(*args, **options)) is None
        return self.runner.sample_tokens(None)


@pytest.fixture
def running(config: VllmConfig) -> Running:
    """An empty batch over an empty cache."""
    backend = ArithmeticBackend()
    runner = MindSporeModelRunner(config, backend)
    cache = KVCache(backend.cache_shapes(), NUM_BLOCKS, BLOCK)
    runner.bind_cache(cache)
    return Running(runner, backend, cache)


def test_prefill_and_decode_chain_their_tokens(running: Running) -> None:
    output = running.run(new("a", [5, 6, 7], [3]), new("b", [9], [2]))
    first = [next_token(7, 2), next_token(9, 0)]
    assert output.sampled_token_ids == [[first[0]], [first[1]]]
    assert (output.req_ids, output.req_id_to_index) == (["a", "b"], {"a": 0, "b": 1})
    output = running.run(Known("a", 1, 3, 1), Known("b", 1, 1, 1))
    assert output.sampled_token_ids == [[next_token(first[0], 3)], [next_token(first[1], 1)]]
    decode = running.backend.steps[1]
    assert decode.token_ids.tolist() == first
    assert decode.positions.tolist() == [3, 1]
    assert decode.slot_mapping.tolist() == [3 * BLOCK + 3, 2 * BLOCK + 1]
    assert decode.block_tables.tolist() == [[3], [2]]
    assert (decode.context_lens.tolist(), decode.query_lens.tolist()) == ([4, 2], [1, 1])


def test_only_the_rows_of_this_batch_reach_the_graph(running: Running) -> None:
    running.run(*(new(name, [i], [i]) for i, name in enumerate("abc", start=1)))
    running.run(Known("b", 1, computed=1, outputs=1), finished=("a", "c"))
    assert running.backend.steps[1].token_ids.tolist() == [next_token(2, 0)]
    assert running.backend.steps[1].block_tables.tolist() == [[2]]


def test_an_output_does_not_change_with_the_next_step(running: Running) -> None:
    output = running.run(new("a", [5], [3]))
    running.run(new("b", [6], [2]), finished=("a",))
    assert (output.req_ids, output.req_id_to_index) == (["a"], {"a": 0})


def test_a_step_without_tokens_runs_no_graph(running: Running) -> None:
    running.run(new("a", [5], [3]))
    empty = running.runner.execute_model(step(finished=("a",)))
    assert empty is EMPTY_MODEL_RUNNER_OUTPUT
    assert running.runner.sample_tokens(None) is EMPTY_MODEL_RUNNER_OUTPUT
    assert len(running.backend.steps) == 1
    assert running.run(new("a", [8], [4])).sampled_token_ids == [[next_token(8, 0)]]


def test_a_step_is_sampled_once(running: Running) -> None:
    running.run(new("a", [5], [3]))
    assert running.runner.sample_tokens(None) is EMPTY_MODEL_RUNNER_OUTPUT


def test_an_unfinished_prompt_samples_nothing(running: Running) -> None:
    chunk = running.run(new("a", [1, 2, 3, 4, 5], [3]), new("b", [9], [2]), counts={"a": 3})
    assert chunk.sampled_token_ids == [[], [next_token(9, 0)]]
    rest = running.run(Known("a", 2, computed=3, outputs=0), Known("b", 1, computed=1, outputs=1))
    assert running.backend.steps[1].token_ids.tolist() == [4, 5, next_token(9, 0)]
    assert rest.sampled_token_ids[0] == [next_token(5, 4)]


def test_blocks_are_copied_before_the_graph_runs(running: Running) -> None:
    for buffer in running.backend.caches:
        buffer[1] = 7.0
    running.run(new("a", [5], [3]), kv_cache_block_copies=[KVCacheBlockCopy(1, 3)])
    assert running.backend.marks == [[0, 7, 0, 7, 0, 0, 0, 0]]
    for buffer in running.backend.caches:
        assert (buffer[3] == 7.0).all()
        assert (buffer[2] == 0.0).all()


def test_blocks_are_copied_in_a_step_without_tokens(running: Running) -> None:
    running.backend.caches[0][1] = 7.0
    running.runner.execute_model(step(kv_cache_block_copies=[KVCacheBlockCopy(1, 3)]))
    assert (running.backend.caches[0][3] == 7.0).all()


def test_a_grammar_masks_its_own_request(running: Running) -> None:
    running.runner.execute_model(step(new("a", [5], [3]), new("b", [6], [2])))
    words = np.zeros((1, VOCAB // 32), np.int32)
    words[0, 40 // 32] = 1 << (40 % 32)  # token 40 is the only one allowed
    output = running.runner.sample_tokens(GrammarOutput(["b"], words))
    assert output.sampled_token_ids == [[next_token(5, 0)], [40]]


def test_logprobs_are_those_of_the_logits(running: Running) -> None:
    params = SamplingParams(temperature=0, logprobs=2)
    output = running.run(new("a", [5], [3], params=params), new("b", [6], [2]))
    expected = running.backend.logits(np.array([[5, 0]]), np.array([0])).log_softmax(-1)[0]
    token = next_token(5, 0)
    assert output.logprobs.logprob_token_ids[0].tolist()[:2] == [token, token]
    np.testing.assert_allclose(output.logprobs.logprobs[0][:2], expected[token].repeat(2))
    assert output.logprobs.sampled_token_ranks[0] == 1


def test_prompt_logprobs_arrive_with_the_last_chunk(running: Running) -> None:
    params = SamplingParams(temperature=0, prompt_logprobs=0)
    prompt = [5, next_token(5, 0), 9, 9]
    chunk = running.run(new("a", prompt, [3], params=params), counts={"a": 2})
    assert chunk.prompt_logprobs_dict == {}
    scores = running.run(Known("a", 2, computed=2, outputs=0)).prompt_logprobs_dict["a"]
    hidden = np.array([[token, position] for position, token in enumerate(prompt)])
    expected = running.backend.logits(hidden, np.arange(3)).log_softmax(-1)
    wanted = [float(expected[row, token]) for row, token in enumerate(prompt[1:])]
    np.testing.assert_allclose(scores.logprobs[:, 0], wanted, rtol=1e-6)


def answer(running: Running, seed: int, *, company: bool) -> list[int]:
    """Six random tokens of a request, after which the batch is empty again."""
    params = SamplingParams(temperature=2, seed=seed)
    tokens = list(running.run(new("a", [5], [3], params=params)).sampled_token_ids)
    others: list[str] = []
    for count in range(1, 6):
        fresh = [f"x{count}"] if company else []
        requests = [new(name, [9], [2], params=SamplingParams(temperature=2)) for name in fresh]
        known = Known("a", 1, computed=count, outputs=count)
        output = running.run(*requests, known, finished=tuple(others))
        tokens.append(output.sampled_token_ids[output.req_id_to_index["a"]])
        others = fresh
    running.runner.execute_model(step(finished=("a", *others)))
    return [token for row in tokens for token in row]


def test_equal_seeds_give_equal_tokens_alone_and_in_company(running: Running) -> None:
    assert answer(running, 11, company=False) == answer(running, 11, company=True)
    assert answer(running, 11, company=False) != answer(running, 12, company=False)


def test_vllm_finds_no_torch_modules(running: Running) -> None:
    assert list(running.runner.model.modules()) == []
