# SPDX-License-Identifier: Apache-2.0
"""Sampling and prompt scores against torch's own log_softmax and ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.outputs import LogprobsTensors

from tests.worker.scheduling import Known, new, step
from vllm_mindspore.worker import sampler as sampler_module
from vllm_mindspore.worker.requests import Requests
from vllm_mindspore.worker.sampler import HostSampler, PromptLogprobs, sample

BLOCK = 16
VOCAB = 2048
NOBODY = np.array([], np.int64)


@pytest.fixture
def requests(config: VllmConfig) -> Requests:
    """No requests yet."""
    return Requests(config, BLOCK)


def logits(rows: int) -> torch.Tensor:
    """Random scores."""
    return torch.randn(rows, VOCAB) * 3


def test_greedy_rows_take_the_largest_logit(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests.update(step(new("a", [1], [1]), new("b", [2], [2])))
    scores = logits(2)
    expected = [[int(row.argmax())] for row in scores]
    monkeypatch.setattr(torch.Tensor, "argmax", None)  # the slow one, which vLLM would use
    result = sample(HostSampler(), requests, scores, [[], []], NOBODY)
    assert result.token_ids == expected
    assert [state.output_token_ids for state in requests.states.values()] == expected
    assert result.logprobs is None


@pytest.mark.parametrize("values", [{9: 50.0, 100: 50.0}, {77: torch.nan, 5: torch.inf}, {}])
def test_greedy_takes_what_torch_takes(values: dict[int, float]) -> None:
    scores = logits(3)
    for token, value in values.items():
        scores[1, token] = value
    torch.testing.assert_close(HostSampler.greedy_sample(scores), scores.argmax(dim=-1))


def test_a_discarded_row_keeps_its_random_numbers(requests: Requests) -> None:
    params = SamplingParams(temperature=1, seed=3)
    requests.update(step(*(new(name, [1], [1], params=params) for name in "abc")))
    before = [requests.batch.generators[row].get_state() for row in range(3)]
    result = sample(HostSampler(), requests, logits(3), [[], [], []], np.array([1]))
    kept = [
        torch.equal(requests.batch.generators[row].get_state(), state)
        for row, state in enumerate(before)
    ]
    assert kept == [False, True, False]
    assert [len(tokens) for tokens in result.token_ids] == [1, 0, 1]
    assert requests.states["b"].output_token_ids == []


def one_by_one(requests: Requests, req_id: str, scores: torch.Tensor) -> list[int]:
    """What a request samples from the rows of `scores` in steps of their own."""
    sampled = []
    for row in scores:
        result = sample(HostSampler(), requests, row[None].clone(), [[]], NOBODY)
        sampled += result.token_ids[0]
        requests.batch.refresh_metadata()
    assert requests.states[req_id].output_token_ids == sampled
    return sampled


SEEDED = SamplingParams(temperature=1.0, top_k=50, seed=5, repetition_penalty=1.3, min_tokens=3)


@pytest.mark.parametrize("right", [0, 1, 2, 3])
def test_drafts_change_no_token(config: VllmConfig, right: int) -> None:
    """Row a: `right` right guesses and then a wrong one; row b: no guess, as without drafts."""
    rows = {"a": logits(4), "b": logits(1)}
    plain, states = {}, {}
    for name, scores in rows.items():
        alone = Requests(config, BLOCK)
        alone.update(step(new(name, [1, 2], [1], params=SEEDED)))
        taken = right + 1 if name == "a" else 1
        plain[name] = one_by_one(alone, name, scores[:taken])
        states[name] = alone.batch.generators[0].get_state()
    together = Requests(config, BLOCK)
    together.update(step(*(new(name, [1, 2], [1], params=SEEDED) for name in rows)))
    draft = [*plain["a"][:right], VOCAB - 1, -1, -1][:3]
    scores = torch.cat(list(rows.values()))
    result = sample(HostSampler(), together, scores, [draft, []], NOBODY)
    assert result.token_ids == [plain["a"], plain["b"]]
    assert len(result.token_ids[0]) == right + 1
    for row, name in enumerate(rows):
        assert torch.equal(together.batch.generators[row].get_state(), states[name])
        assert together.tokens(row).tolist() == [1, 2, *plain[name]]


def test_scores_of_accepted_drafts_follow_their_row(requests: Requests) -> None:
    params = SamplingParams(temperature=0, logprobs=1)
    requests.update(step(*(new(name, [1], [1], params=params) for name in "ab")))
    scores = logits(4)
    best = scores.argmax(-1).tolist()
    expected = scores.log_softmax(-1)
    result = sample(HostSampler(), requests, scores, [[best[0], 0], []], NOBODY)
    assert result.token_ids == [best[:2], best[3:]]
    assert result.logprobs is not None
    for row, positions in ((0, [0, 1]), (1, [3])):
        found = result.logprobs.slice_request(row, len(positions))
        assert found.logprob_token_ids[:, 0].tolist() == [best[p] for p in positions]
        np.testing.assert_allclose(
            found.logprobs[:, 0], [float(expected[p, best[p]]) for p in positions], rtol=1e-5
        )


class Scored:
    """One request's prompt, scored in the chunks a test chooses."""

    def __init__(self, requests: Requests, mode: str, prompt: Sequence[int], number: int) -> None:
        self.requests = requests
        self.prompt = list(prompt)
        self.logits = logits(len(prompt))
        self.collector = PromptLogprobs(HostSampler(), requests, mode)
        self.params = SamplingParams(temperature=0, prompt_logprobs=number)
        self.rows: list[int] = []

    def chunk(self, start: int, count: int, **options: bool) -> dict[str, LogprobsTensors | None]:
        """Scores `count` prompt tokens from `start`, behind another request's single row."""
        if start == 0 and not options:
            request = new("a", self.prompt, [1], params=self.params)
        else:
            request = Known("a", count, start, 0, blocks=[1] if options else None, **options)
        other = new(f"x{start}", [1], [2])
        output = step(other, request, counts={"a": count}, finished=tuple(self.others()))
        self.requests.update(output)
        batch = self.requests.batch
        lengths = self.requests.scheduled_tokens(output)
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        first = int(starts[batch.req_id_to_index["a"]])

        def row_logits(rows: np.ndarray) -> torch.Tensor:
            assert rows.dtype == np.int32
            self.rows.append(len(rows))
            return self.logits[rows - first + start].clone()

        return self.collector.collect(output, starts, row_logits)

    def others(self) -> list[str]:
        """The company of the last chunk."""
        return [req_id for req_id in self.requests.states if req_id.startswith("x")]

    def check(self, found: LogprobsTensors | None, scores: torch.Tensor, number: int) -> None:
        """Each token after the first: its score and rank, then the best `number` tokens."""
        assert found is not None
        targets = torch.tensor(self.prompt[1:])
        assert found.logprobs.shape == (len(targets), number + 1)
        own = scores[:-1].gather(1, targets[:, None])
        torch.testing.assert_close(found.logprobs[:, :1], own)
        assert found.logprob_token_ids[:, 0].tolist() == targets.tolist()
        ranks = (scores[:-1] >= own).sum(-1)
        assert found.selected_token_ranks.tolist() == ranks.tolist()
        best = scores[:-1].topk(number)
        torch.testing.assert_close(found.logprobs[:, 1:], best.values)
        assert found.logprob_token_ids[:, 1:].tolist() == best.indices.tolist()


@pytest.mark.parametrize("chunks", [[9], [3, 6], [4, 4, 1], [8, 1]])
def test_prompt_scores_do_not_depend_on_the_chunks(requests: Requests, chunks: list[int]) -> None:
    scored = Scored(requests, "raw_logprobs", range(100, 109), number=2)
    found, start = {}, 0
    for count in chunks:
        assert found == {}, "only the last chunk completes the prompt"
        found = scored.chunk(start, count)
        start += count
    scored.check(found["a"], scored.logits.log_softmax(-1), number=2)
    assert requests.unscored_prompts == set()
    assert requests.states["a"].in_progress_prompt_logprobs_cpu is None


def test_long_prompts_are_scored_in_parts(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler_module, "_PROMPT_ROWS", 3)
    scored = Scored(requests, "raw_logprobs", range(100, 108), number=1)
    found = scored.chunk(0, 8)
    assert scored.rows == [3, 3, 1]
    scored.check(found["a"], scored.logits.log_softmax(-1), number=1)


def test_logits_modes_score_with_logits(requests: Requests) -> None:
    scored = Scored(requests, "raw_logits", range(100, 104), number=1)
    scored.check(scored.chunk(0, 4)["a"], scored.logits, number=1)


def test_minus_one_scores_the_whole_vocabulary(requests: Requests) -> None:
    scored = Scored(requests, "raw_logprobs", range(100, 103), number=-1)
    scored.check(scored.chunk(0, 3)["a"], scored.logits.log_softmax(-1), number=VOCAB)


def test_a_prompt_of_one_token_has_no_scores(requests: Requests) -> None:
    scored = Scored(requests, "raw_logprobs", [7], number=1)
    found = scored.chunk(0, 1)["a"]
    assert found is not None
    assert found.logprobs.shape == (0, 2)
    assert scored.rows == []


def test_a_prompt_preempted_between_its_chunks_is_scored_from_its_start(
    requests: Requests,
) -> None:
    scored = Scored(requests, "raw_logprobs", range(100, 106), number=1)
    assert scored.chunk(0, 4) == {}
    requests.update(step(finished=tuple(scored.others())))
    found = scored.chunk(0, 6, resumed=True)
    scored.check(found["a"], scored.logits.log_softmax(-1), number=1)


def test_requests_that_asked_for_no_scores_get_none(requests: Requests) -> None:
    output = step(new("a", [1, 2, 3], [1]))
    requests.update(output)
    collector = PromptLogprobs(HostSampler(), requests, "raw_logprobs")

    def unwanted(rows: np.ndarray) -> torch.Tensor:
        raise AssertionError(f"logits of rows {rows} were computed")

    assert collector.collect(output, np.array([0, 3], np.int32), unwanted) == {}
