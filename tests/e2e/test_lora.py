# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters through the engine: each request equals transformers with its adapter merged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

from tests.e2e.conftest import Checkpoint, Engine
from tests.e2e.test_correctness import ragged_prompts
from tests.model_executor.model_loader.adapters import (
    ALL,
    linear_shapes,
    merge_adapter,
    write_adapter,
)

GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, detokenize=False)
# Number -> rank, alpha and layers. More than fit into a batch (2) or into memory (3).
ADAPTERS = {
    1: (4, 8, ALL),
    2: (8, 4, ("q_proj", "v_proj")),
    3: (1, 1, ("down_proj",)),
    4: (2, 6, ("gate_proj", "o_proj", "k_proj")),
}
NAME = "qwen2"  # has biases, which adapters come on top of


@pytest.fixture(scope="session")
def model(checkpoint: Checkpoint) -> Callable[[], PreTrainedModel]:
    """A fresh copy of the reference model."""
    folder = checkpoint(NAME, torch.float32)
    return lambda: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def adapters(
    model: Callable[[], PreTrainedModel], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    """Folders of the adapters."""
    folder = tmp_path_factory.mktemp("adapters")
    return {
        number: write_adapter(
            folder / str(number),
            linear_shapes(model(), targets),
            rank=rank,
            alpha=alpha,
            seed=number,
        )
        for number, (rank, alpha, targets) in ADAPTERS.items()
    }


@pytest.fixture(scope="session")
def llm(checkpoint: Checkpoint, engine: Engine) -> LLM:
    return engine(
        checkpoint(NAME, torch.float32),
        dtype="float32",
        enable_lora=True,
        max_loras=2,
        max_cpu_loras=3,
        max_lora_rank=8,
    )


@torch.no_grad()
def greedy(model: PreTrainedModel, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=24,
        eos_token_id=-1,
    )
    return output[0, len(prompt) :].tolist()


def request(number: int, folder: Path) -> LoRARequest | None:
    return LoRARequest(f"adapter-{number}", number, str(folder)) if number else None


def run(llm: LLM, prompts: list[list[int]], requests: list[LoRARequest | None]) -> list[list[int]]:
    outputs = llm.generate(
        [{"prompt_token_ids": prompt} for prompt in prompts],
        GREEDY,
        lora_request=requests,
        use_tqdm=False,
    )
    return [list(output.outputs[0].token_ids) for output in outputs]


def test_every_request_has_its_adapter(
    llm: LLM, adapters: dict[int, Path], model: Callable[[], PreTrainedModel]
) -> None:
    """One call with all adapters and none: more than a batch or memory holds at a time."""
    prompts = ragged_prompts(seed=5)[:6]
    numbers = [1, 0, 2, 3, 4, 1]
    found = run(llm, prompts, [request(n, adapters.get(n, Path())) for n in numbers])
    plain = model()
    for number, prompt, tokens in zip(numbers, prompts, found, strict=True):
        reference = plain
        if number:
            rank, alpha, _ = ADAPTERS[number]
            reference = merge_adapter(model(), adapters[number], alpha / rank)
            assert tokens != greedy(plain, prompt), "the adapter makes no difference"
        assert tokens == greedy(reference, prompt), number


def test_tokens_do_not_depend_on_the_company(llm: LLM, adapters: dict[int, Path]) -> None:
    prompts = ragged_prompts(seed=6)[:4]
    requests = [request(n, adapters.get(n, Path())) for n in (1, 2, 0, 1)]
    together = run(llm, prompts, requests)
    alone = [run(llm, [p], [r])[0] for p, r in zip(prompts, requests, strict=True)]
    assert together == alone


def test_a_prefix_is_shared_within_an_adapter_only(llm: LLM, adapters: dict[int, Path]) -> None:
    prompt = ragged_prompts(seed=7)[-1]
    first = run(llm, [prompt], [request(1, adapters[1])])
    assert run(llm, [prompt], [None]) != first
    assert run(llm, [prompt], [request(1, adapters[1])]) == first


def test_adapters_come_and_go(llm: LLM, adapters: dict[int, Path]) -> None:
    engine = llm.llm_engine
    for number in engine.list_loras():
        assert engine.remove_lora(number)
    assert engine.list_loras() == set()
    assert engine.add_lora(request(2, adapters[2]))
    assert engine.pin_lora(2)
    assert engine.list_loras() == {2}
    prompt = ragged_prompts(seed=8)[:1]
    for number in (1, 3, 4):
        run(llm, prompt, [request(number, adapters[number])])
    assert engine.list_loras() == {2, 3, 4}
    assert engine.remove_lora(2)
    assert not engine.remove_lora(2)


def test_an_adapter_of_another_model_is_refused(llm: LLM, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "other", {"model.layers.9.mlp.down_proj": (8, 8)})
    with pytest.raises(ValueError, match=r"the model has no linear layer model\.layers\.9"):
        llm.llm_engine.add_lora(request(9, folder))
    assert 9 not in llm.llm_engine.list_loras()
