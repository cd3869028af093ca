# SPDX-License-Identifier: Apache-2.0
"""Embeddings, classification and scores against Hugging Face transformers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
    Qwen3Model,
)
from vllm import LLM
from vllm.config import PoolerConfig
from vllm.outputs import EmbeddingRequestOutput

from tests.e2e.checkpoints import SMALL, VOCAB_SIZE, randomize
from tests.e2e.conftest import Engine

LENGTHS = (1, 7, 33, 64, 129)
LABELS = 3
# fp32 results of a 3-layer network, near 1: rounding gives 1e-6, mistakes more than 1e-3.
TOLERANCE = 2e-5
POOLING: dict[str, Any] = {"runner": "pooling", "dtype": "float32", "skip_tokenizer_init": False}


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(1, VOCAB_SIZE, (n,), generator=generator).tolist() for n in LENGTHS]


def inputs() -> list[dict[str, list[int]]]:
    return [{"prompt_token_ids": prompt} for prompt in prompts()]


def config(**more: Any) -> Qwen3Config:
    return Qwen3Config(**(SMALL | {"head_dim": 40, "tie_word_embeddings": False} | more))


def save(model: PreTrainedModel, folder: Path, tokenizer_of: Path) -> Path:
    """Writes the model; vLLM pools with a tokenizer only, any will do for token ids."""
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_of / name, folder)
    return folder


@pytest.fixture(scope="session")
def decoder_folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A decoder without a head: names lack `model.`, the architecture is Qwen3Model."""
    model = randomize(Qwen3Model(config()))
    return save(model, tmp_path_factory.mktemp("decoder"), tiny_model)


@pytest.fixture(scope="session")
def language_model_folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A whole model, whose head pooling leaves alone."""
    model = randomize(Qwen3ForCausalLM(config()))
    return save(model, tmp_path_factory.mktemp("language_model"), tiny_model)


@pytest.fixture(scope="session")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    model = randomize(Qwen3ForSequenceClassification(config(num_labels=LABELS)))
    return save(model, tmp_path_factory.mktemp("classifier"), tiny_model)


@torch.no_grad()
def reference_embeddings(folder: Path) -> torch.Tensor:
    """Normalised last hidden states."""
    model = Qwen3Model.from_pretrained(folder, dtype=torch.float32).eval()
    last = [model(torch.tensor([p])).last_hidden_state[0, -1] for p in prompts()]
    return torch.nn.functional.normalize(torch.stack(last), dim=-1)


def embeddings(outputs: list[EmbeddingRequestOutput]) -> torch.Tensor:
    return torch.tensor([output.outputs.embedding for output in outputs])


def test_embeddings(decoder_folder: Path, engine: Engine) -> None:
    llm = engine(decoder_folder, **POOLING)
    found = embeddings(llm.embed(inputs(), use_tqdm=False))
    torch.testing.assert_close(found, reference_embeddings(decoder_folder), atol=TOLERANCE, rtol=0)


def test_embeddings_of_a_language_model(language_model_folder: Path, engine: Engine) -> None:
    llm = engine(language_model_folder, **POOLING)
    found = embeddings(llm.embed(inputs(), use_tqdm=False))
    expected = reference_embeddings(language_model_folder)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


def test_prompts_in_chunks(decoder_folder: Path, engine: Engine) -> None:
    """A prompt that takes several steps gives its embedding once, in the last."""
    whole = embeddings(engine(decoder_folder, **POOLING).embed(inputs(), use_tqdm=False))
    chunked = engine(decoder_folder, max_num_batched_tokens=16, **POOLING)
    found = embeddings(chunked.embed(inputs(), use_tqdm=False))
    assert torch.equal(found, whole)


def test_every_token(decoder_folder: Path, engine: Engine) -> None:
    llm = engine(decoder_folder, pooler_config=PoolerConfig(task="token_embed"), **POOLING)
    outputs = llm.encode(inputs(), pooling_task="token_embed", use_tqdm=False)
    assert [len(output.outputs.data) for output in outputs] == list(LENGTHS)
    last = torch.stack([output.outputs.data[-1] for output in outputs])
    torch.testing.assert_close(
        last.float(), reference_embeddings(decoder_folder), atol=TOLERANCE, rtol=0
    )


@torch.no_grad()
def test_classification(classifier_folder: Path, engine: Engine) -> None:
    model = Qwen3ForSequenceClassification.from_pretrained(classifier_folder).eval()
    expected = torch.cat([model(torch.tensor([p])).logits for p in prompts()]).softmax(-1)
    outputs = engine(classifier_folder, **POOLING).classify(inputs(), use_tqdm=False)
    found = torch.tensor([output.outputs.probs for output in outputs])
    assert found.shape == (len(LENGTHS), LABELS)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="session")
def reranker(tiny_model: Path, engine: Engine) -> LLM:
    """A language model that scores by two of its words, as Qwen3-Reranker does."""
    overrides = {
        "architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": ["A", "B"],
        "is_original_qwen3_reranker": True,
    }
    return engine(tiny_model, hf_overrides=overrides, **POOLING)


@torch.no_grad()
def test_scores_by_two_words(tiny_model: Path, reranker: LLM) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    query, documents = "Who is Tom?", ["Tom is a cat.", "The sea is blue.", "A boy."]
    words = tokenizer.convert_tokens_to_ids(["A", "B"])
    for output, document in zip(
        reranker.score(query, documents, use_tqdm=False), documents, strict=True
    ):
        tokens = tokenizer(query + document)["input_ids"]
        assert output.prompt_token_ids == tokens
        no, yes = model(torch.tensor([tokens])).logits[0, -1, words]
        assert output.outputs.score == pytest.approx(float(torch.sigmoid(yes - no)), abs=1e-4)


def test_scores_of_embeddings(tiny_model: Path, engine: Engine) -> None:
    """Without a classifier a score is the cosine of two embeddings."""
    llm = engine(tiny_model, **POOLING)
    texts = ["A cat sat.", "The sun is hot."]
    one, other = embeddings(llm.embed(texts, use_tqdm=False))
    (score,) = llm.score(texts[0], texts[1], use_tqdm=False)
    assert score.outputs.score == pytest.approx(float(one @ other), abs=1e-5)


def test_generation_is_refused(decoder_folder: Path, engine: Engine) -> None:
    with pytest.raises(ValueError, match="generate"):
        engine(decoder_folder, **POOLING).generate(inputs(), use_tqdm=False)
