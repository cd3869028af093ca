# SPDX-License-Identifier: Apache-2.0
"""The independent reference: Hugging Face transformers on torch CPU with the same folder."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.e2e.tolerance import CHOICE_SPREAD, relative_error


class Reference:
    """A transformers model, computed one sequence at a time."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self._model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        self._model.eval()

    @torch.no_grad()
    def logits(self, token_ids: list[int]) -> torch.Tensor:
        """fp32 [T, vocab] of every position."""
        return self._model(torch.tensor([token_ids])).logits[0].float()

    def logprobs(self, token_ids: list[int]) -> torch.Tensor:
        """fp32 [T, vocab] log probabilities of the next token."""
        return self.logits(token_ids).log_softmax(-1)

    @torch.no_grad()
    def greedy(self, token_ids: list[int], count: int) -> list[int]:
        """`count` tokens of greedy continuation."""
        cache = None
        step, output = torch.tensor([token_ids]), []
        for _ in range(count):
            result = self._model(step, past_key_values=cache, use_cache=True)
            cache = result.past_key_values
            step = result.logits[:, -1:].argmax(-1)
            output.append(int(step))
        return output

    def units(self, dtype: torch.dtype, token_ids: list[int]) -> torch.Tensor:
        """fp32 [T, vocab]: by how much rounding to `dtype` puts each logit off, in the mean."""
        return self._error_per_length(dtype, token_ids)[:, None] * self._head.norm(dim=-1)

    def clear_choices(self, dtype: torch.dtype, token_ids: list[int]) -> torch.Tensor:
        """bool [T]: whether the two best logits of a position lie further apart than rounding to
        `dtype` can explain."""
        best = self.logits(token_ids).topk(2)
        first, second = self._head[best.indices].unbind(1)
        unit = self._error_per_length(dtype, token_ids) * (first - second).norm(dim=-1)
        return best.values[:, 0] - best.values[:, 1] > CHOICE_SPREAD * unit

    @property
    def _head(self) -> torch.Tensor:
        return self._model.get_output_embeddings().weight.detach().float()

    @torch.no_grad()
    def _error_per_length(self, dtype: torch.dtype, token_ids: list[int]) -> torch.Tensor:
        """fp32 [T]: the mean error of hidden . row for a row of length 1."""
        config = self._model.config
        hidden = self._model.model(torch.tensor([token_ids])).last_hidden_state[0].float()
        error = relative_error(dtype, config.num_hidden_layers, config.hidden_size)
        return error * hidden.norm(dim=-1) / float(config.hidden_size) ** 0.5
