# SPDX-License-Identifier: Apache-2.0
"""The linear head of a sequence classifier: hidden state -> one logit per label.

It is stored as `score.weight`, or made of rows of a language model's head: a reranker that answers
with a word (Qwen3-Reranker) scores by the words' logits (`classifier_from_token` in config.json).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from vllm.config import ModelConfig
from vllm.tokenizers import get_tokenizer

from vllm_mindspore import bridge
from vllm_mindspore.model_executor.model_loader.source import ParameterSource

WEIGHT, BIAS = "score.weight", "score.bias"


@dataclass(frozen=True)
class LinearClassifier:
    """weight [labels, hidden size] and bias [labels], in the dtype of the head."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., hidden size] -> [..., labels]."""
        return torch.nn.functional.linear(hidden, self.weight, self.bias)


def load_classifier(
    source: ParameterSource, config: ModelConfig, head_name: str
) -> LinearClassifier:
    """The classifier of a checkpoint whose language model head is (or was) `head_name`.

    ValueError if config.json names words or a method that are not known.
    """
    hf_config = config.hf_config
    words: list[str] | None = getattr(hf_config, "classifier_from_token", None)
    if words is not None:
        head = source.take(head_name, (hf_config.vocab_size, hf_config.hidden_size))
        weight = _word_weights(bridge.to_torch(head), words, config)
        return LinearClassifier(weight.to(config.head_dtype), None)
    shape = (int(hf_config.num_labels), int(hf_config.hidden_size))
    weight = bridge.to_torch(source.take(WEIGHT, shape))
    bias = bridge.to_torch(source.take(BIAS, shape[:1])) if source.has(BIAS) else None
    return LinearClassifier(
        weight.to(config.head_dtype), None if bias is None else bias.to(config.head_dtype)
    )


def _word_weights(head: torch.Tensor, words: list[str], config: ModelConfig) -> torch.Tensor:
    """[labels, hidden size], fp32, from the head's rows [vocab, hidden size] of the words."""
    rows = head[_token_ids(words, config)].float()
    method: Any = getattr(config.hf_config, "method", None)
    if method == "no_post_processing":
        return rows
    if method == "from_2_way_softmax" and len(words) == 2:
        return rows[1:] - rows[:1]
    raise ValueError(
        f"config.json: method={method!r} with classifier_from_token={words} is not supported; use "
        "from_2_way_softmax with two words, or no_post_processing"
    )


def _token_ids(words: list[str], config: ModelConfig) -> list[int]:
    tokenizer = get_tokenizer(
        config.tokenizer,
        revision=config.tokenizer_revision,
        tokenizer_mode=config.tokenizer_mode,
        trust_remote_code=config.trust_remote_code,
    )
    ids = [tokenizer.convert_tokens_to_ids(word) for word in words]
    for word, token_id in zip(words, ids, strict=True):
        if token_id is None or token_id == getattr(tokenizer, "unk_token_id", None):
            raise ValueError(f"classifier_from_token: {word!r} is not a token of the tokenizer")
    return ids
