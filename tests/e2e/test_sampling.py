# SPDX-License-Identifier: Apache-2.0
"""What requests may ask of sampling: distributions against the reference's probabilities, rules
against tokens that obey them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from vllm import LLM, SamplingParams

from tests.e2e.checkpoints import VOCAB_SIZE
from tests.e2e.conftest import Checkpoint, Engine
from tests.e2e.reference import Reference
from tests.e2e.test_correctness import ragged_prompts

NAME, SAMPLES = "qwen3", 4000
PROMPT = ragged_prompts(seed=3)[3]
# One wrong answer in 10^6 seeds; the seed is fixed.
P_VALUE = 1e-6


@pytest.fixture(scope="session")
def llm(checkpoint: Checkpoint, engine: Engine) -> LLM:
    return engine(checkpoint(NAME, torch.float32), dtype="float32")


@pytest.fixture(scope="session")
def scores(
    checkpoint: Checkpoint, reference: Callable[..., Reference]
) -> Callable[[list[int]], np.ndarray]:
    """fp64 logits of the token after a prompt."""
    model = reference(checkpoint(NAME, torch.float32), torch.float32)
    return lambda prompt: model.logits(prompt)[-1].double().numpy()


def generate(llm: LLM, prompt: list[int], **params: Any) -> list[list[int]]:
    """Token ids of each answer."""
    chosen = SamplingParams(detokenize=False, ignore_eos=True, **params)
    (output,) = llm.generate([{"prompt_token_ids": prompt}], chosen, use_tqdm=False)
    return [list(answer.token_ids) for answer in output.outputs]


def probabilities(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def keep(logits: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return np.where(kept, logits, -np.inf)


def top_p(logits: np.ndarray, mass: float) -> np.ndarray:
    """The fewest best tokens that have `mass` together."""
    order = np.argsort(-logits)
    before = np.cumsum(probabilities(logits)[order]) - probabilities(logits)[order]
    kept = np.zeros(len(logits), bool)
    kept[order[before < mass]] = True
    return keep(logits, kept)


def repeated(logits: np.ndarray, penalty: float) -> np.ndarray:
    """Tokens of the prompt are divided by the penalty, or multiplied where negative."""
    seen = np.isin(np.arange(len(logits)), PROMPT)
    return np.where(seen, np.where(logits > 0, logits / penalty, logits * penalty), logits)


def biased(logits: np.ndarray, bias: dict[int, float]) -> np.ndarray:
    changed = logits.copy()
    for token, value in bias.items():
        changed[token] += value
    return changed


ALLOWED = [3, 50, 77, 200, 201, 300]
BIAS = {5: 6.0, 9: 4.0}
Expected = Callable[[np.ndarray], np.ndarray]
DISTRIBUTIONS: dict[str, tuple[dict[str, Any], Expected]] = {
    "temperature": ({"temperature": 2.0}, lambda x: x / 2.0),
    "top_k": ({"top_k": 5}, lambda x: keep(x, x >= np.sort(x)[-5])),
    "top_p": ({"top_p": 0.7}, lambda x: top_p(x, 0.7)),
    "top_k_top_p": (
        {"top_k": 8, "top_p": 0.6, "temperature": 1.5},
        lambda x: top_p(keep(x / 1.5, x >= np.sort(x)[-8]), 0.6),
    ),
    "min_p": (
        {"min_p": 0.05, "temperature": 2.0},
        lambda x: keep(x / 2, probabilities(x / 2) >= 0.05 * probabilities(x / 2).max()),
    ),
    "repetition_penalty": ({"repetition_penalty": 1.5}, lambda x: repeated(x, 1.5)),
    "logit_bias": ({"logit_bias": BIAS}, lambda x: biased(x, BIAS)),
    "allowed_token_ids": (
        {"allowed_token_ids": ALLOWED},
        lambda x: keep(x, np.isin(np.arange(len(x)), ALLOWED)),
    ),
}


def chi_square_tail(statistic: float, degrees: int) -> float:
    """Probability of a larger chi-square value."""
    half = torch.tensor([degrees / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


@pytest.mark.parametrize("case", DISTRIBUTIONS)
def test_samples_follow_the_distribution(
    case: str, llm: LLM, scores: Callable[[list[int]], np.ndarray]
) -> None:
    """Pearson's test over the tokens expected 5 times or more, the others taken together."""
    params, transform = DISTRIBUTIONS[case]
    expected = SAMPLES * probabilities(transform(scores(PROMPT)))
    answers = generate(llm, PROMPT, **({"temperature": 1.0} | params), n=SAMPLES, max_tokens=1)
    counts = np.bincount([answer[0] for answer in answers], minlength=VOCAB_SIZE)
    assert counts[expected < 1e-9].sum() == 0, "a token that must not be sampled"
    common = expected >= 5
    rest, rest_found = expected[~common].sum(), counts[~common].sum()
    parts = [(counts[common] - expected[common]) ** 2 / expected[common]]
    if rest >= 5:
        parts.append(np.array([(rest_found - rest) ** 2 / rest]))
    statistic = np.concatenate(parts)
    assert len(statistic) >= 2, "nothing to tell apart"
    assert chi_square_tail(float(statistic.sum()), len(statistic) - 1) > P_VALUE


@pytest.mark.parametrize(
    "penalties",
    [
        {"frequency_penalty": 1.5},
        {"presence_penalty": 2.0},
        {"repetition_penalty": 1.4, "frequency_penalty": -0.5},
    ],
    ids=lambda penalties: "+".join(penalties),
)
def test_penalties_of_greedy_answers(
    penalties: dict[str, float], llm: LLM, scores: Callable[[list[int]], np.ndarray]
) -> None:
    """Token by token what the formulas give on the reference's logits."""
    (answer,) = generate(llm, PROMPT, temperature=0, max_tokens=24, **penalties)
    expected: list[int] = []
    for _ in range(24):
        logits = scores(PROMPT + expected)
        seen = np.isin(np.arange(VOCAB_SIZE), PROMPT + expected)
        factor = penalties.get("repetition_penalty", 1.0)
        scaled = np.where(logits > 0, logits / factor, logits * factor)
        logits = np.where(seen, scaled, logits)
        counts = np.bincount(expected, minlength=VOCAB_SIZE)
        logits = logits - penalties.get("frequency_penalty", 0.0) * counts
        logits = logits - penalties.get("presence_penalty", 0.0) * (counts > 0)
        expected.append(int(logits.argmax()))
    assert answer == expected
    assert answer != generate(llm, PROMPT, temperature=0, max_tokens=24)[0]


def test_stop_tokens_and_the_least_number(llm: LLM) -> None:
    (free,) = generate(llm, PROMPT, temperature=0, max_tokens=30)
    stop = free[4]
    first = free.index(stop)
    (stopped,) = generate(llm, PROMPT, temperature=0, max_tokens=30, stop_token_ids=[stop])
    assert stopped == free[: first + 1]
    (longer,) = generate(
        llm, PROMPT, temperature=0, max_tokens=30, stop_token_ids=[stop], min_tokens=first + 5
    )
    assert len(longer) >= first + 5
    assert stop not in longer[: first + 4]


def test_answers_of_one_request_differ_and_repeat_with_their_seed(llm: LLM) -> None:
    params: dict[str, Any] = {"temperature": 1.5, "seed": 4, "n": 6, "max_tokens": 12}
    answers = generate(llm, PROMPT, **params)
    assert len({tuple(answer) for answer in answers}) == 6
    assert generate(llm, PROMPT, **params) == answers
    assert generate(llm, PROMPT, **(params | {"seed": 5})) != answers


def test_log_probabilities_of_chosen_tokens(
    llm: LLM, scores: Callable[[list[int]], np.ndarray]
) -> None:
    """The three best and the sampled one, with ranks."""
    params = SamplingParams(temperature=1.0, seed=2, max_tokens=6, logprobs=3, detokenize=False)
    (output,) = llm.generate([{"prompt_token_ids": PROMPT}], params, use_tqdm=False)
    answer = output.outputs[0]
    known = list(PROMPT)
    for token, found in zip(answer.token_ids, answer.logprobs, strict=True):
        expected = np.log(probabilities(scores(known)))
        order = np.argsort(-expected)
        assert set(found) == {token, *order[:3].tolist()}
        for number, entry in found.items():
            assert entry.logprob == pytest.approx(expected[number], abs=1e-3)
            assert entry.rank == int((expected > expected[number]).sum()) + 1
        known.append(token)


def test_every_logit_processor_leaves_others_alone(llm: LLM) -> None:
    """Requests with different rules in one batch give what each gives alone."""
    rules: list[dict[str, Any]] = [
        {"temperature": 0},
        {"temperature": 1.0, "seed": 1, "top_k": 4},
        {"temperature": 0, "logit_bias": {7: 30.0}},
        {"temperature": 0.7, "seed": 2, "min_p": 0.05, "repetition_penalty": 1.3},
        {"temperature": 0, "allowed_token_ids": ALLOWED},
        {"temperature": 1.0, "seed": 3, "top_p": 0.5, "frequency_penalty": 0.7},
    ]
    params = [
        SamplingParams(max_tokens=10, ignore_eos=True, detokenize=False, **rule) for rule in rules
    ]
    inputs = [{"prompt_token_ids": PROMPT}] * len(rules)
    together = llm.generate(inputs, params, use_tqdm=False)
    found = [list(output.outputs[0].token_ids) for output in together]
    alone = [generate(llm, PROMPT, max_tokens=10, **rule)[0] for rule in rules]
    assert found == alone
    assert Counter(found[2]) == {7: 10}
    assert set(found[4]) <= set(ALLOWED)
