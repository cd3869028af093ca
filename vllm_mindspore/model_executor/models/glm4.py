# SPDX-License-Identifier: Apache-2.0
"""GLM-4-0414 (https://github.com/zai-org/GLM-4): GLM with two more norms per layer, on what
attention and feed-forward block add to the residual."""

from __future__ import annotations

from mindspore import Tensor

from vllm_mindspore.model_executor.layers.attention import PagedInputs
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.layers.layernorm import RmsNorm
from vllm_mindspore.model_executor.models.config import DecoderConfig
from vllm_mindspore.model_executor.models.llama import DecoderLayer, Llama


class Glm4DecoderLayer(DecoderLayer):
    """A decoder layer whose two blocks are also normalised behind."""

    def __init__(
        self, builder: LayerBuilder, name: str, config: DecoderConfig, *, first: bool
    ) -> None:
        super().__init__(builder, name, config, first=first)
        hidden, epsilon = config.hidden_size, config.norm_epsilon
        self.attention_norm = RmsNorm(builder, f"{name}.post_self_attn_layernorm", hidden, epsilon)
        self.mlp_norm = RmsNorm(builder, f"{name}.post_mlp_layernorm", hidden, epsilon)

    def construct(
        self,
        x: Tensor,
        residual: Tensor | None,
        inputs: PagedInputs,
        key_cache: Tensor,
        value_cache: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """x and residual [T, hidden] -> the same two for the next layer."""
        x, residual = self.attention(x, residual, inputs, key_cache, value_cache)
        x, _ = self.attention_norm(x)
        x, residual = self.mlp(x, residual, inputs[-1])
        x, _ = self.mlp_norm(x)
        return x, residual


class Glm4(Llama):
    """Glm4ForCausalLM."""

    layer = Glm4DecoderLayer
