# SPDX-License-Identifier: Apache-2.0
"""The independent reference: Hugging Face transformers on torch CPU with the same folder."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.e2e.tolerance import logit_tolerance


class Reference:
    """A transformers model, computed one sequence at a time."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self._model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        self._model.eval()

    def logit_tolerance(self, dtype: torch.dtype, token_ids: list[int]) -> float:
        """How far a logit of this sequence computed in `dtype` may be from ours."""
        config = self._model.config
        scale = self._logit_scale(token_ids)
        return logit_tolerance(dtype, config.num_hidden_layers, config.hidden_size, scale)

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

    @torch.no_grad()
    def _logit_scale(self, token_ids: list[int]) -> float:
        """Largest |hidden| * |head row|: the norm that rounding errors of a logit scale with."""
        hidden = self._model.model(torch.tensor([token_ids])).last_hidden_state[0].float()
        head = self._model.get_output_embeddings().weight.float()
        return float(hidden.norm(dim=-1).max() * head.norm(dim=-1).max())
