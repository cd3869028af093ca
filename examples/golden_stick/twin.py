# SPDX-License-Identifier: Apache-2.0
"""A Qwen3 in float32 that Golden Stick can quantize on a CPU: plain MindSpore cells, named like the
tensors of the Hugging Face checkpoint. Runs in Golden Stick's environment (setup.sh)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, dtype, nn, ops
from mindspore_gs.ptq.models.mindone_models.mindone_model import MindOneModel, SmoothLayerInfo
from safetensors import deserialize


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a folder's safetensors files, bfloat16 among them, as float32."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, entry in deserialize(file.read_bytes()):
            if entry["dtype"] == "BF16":
                bits = np.frombuffer(entry["data"], np.uint16).astype(np.uint32) << 16
                values = bits.view(np.float32)
            else:
                kind = {"F32": np.float32, "F16": np.float16}[entry["dtype"]]
                values = np.frombuffer(entry["data"], kind).astype(np.float32)
            found[name] = values.reshape(entry["shape"])
    return found


class Weight(nn.Cell):
    """A cell that only holds a weight."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = Parameter(Tensor(np.zeros(shape, np.float32)), name="weight")


class RmsNorm(Weight):
    """https://arxiv.org/abs/1910.07467"""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__(size)
        self.epsilon = epsilon

    def construct(self, x: Tensor) -> Tensor:
        """x [.., size] -> the same."""
        return x * ops.rsqrt((x * x).mean(-1, keep_dims=True) + self.epsilon) * self.weight


def dense(inner: int, outer: int) -> nn.Dense:
    """A linear layer without a bias."""
    zeros = Tensor(np.zeros((outer, inner), np.float32))
    return nn.Dense(inner, outer, weight_init=zeros, has_bias=False, dtype=dtype.float32)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Heads x [H, T, D] by the angles of their positions [T, D]."""
    half = x.shape[-1] // 2
    return x * cos + ops.cat((-x[..., half:], x[..., :half]), -1) * sin


class Attention(nn.Cell):
    """Causal attention of one sequence, grouped heads."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, self.dim = config["hidden_size"], config["head_dim"]
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.q_proj = dense(hidden, self.heads * self.dim)
        self.k_proj = dense(hidden, self.kv_heads * self.dim)
        self.v_proj = dense(hidden, self.kv_heads * self.dim)
        self.o_proj = dense(self.heads * self.dim, hidden)
        self.q_norm = RmsNorm(self.dim, config["rms_norm_eps"])
        self.k_norm = RmsNorm(self.dim, config["rms_norm_eps"])

    def construct(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """x [T, hidden] -> the same."""
        query = rotate(self.q_norm(self._split(self.q_proj(x), self.heads)), cos, sin)
        key = rotate(self.k_norm(self._split(self.k_proj(x), self.kv_heads)), cos, sin)
        value = self._split(self.v_proj(x), self.kv_heads)
        repeats = self.heads // self.kv_heads
        key, value = (part.repeat_interleave(repeats, 0) for part in (key, value))
        scores = ops.matmul(query, key.swapaxes(1, 2)) * self.dim**-0.5 + mask
        attended = ops.matmul(ops.softmax(scores, -1), value)
        return self.o_proj(attended.swapaxes(0, 1).reshape(x.shape[0], -1))

    def _split(self, rows: Tensor, heads: int) -> Tensor:
        return rows.reshape(-1, heads, self.dim).swapaxes(0, 1)


class Mlp(nn.Cell):
    """SwiGLU."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        self.gate_proj, self.up_proj = dense(hidden, inner), dense(hidden, inner)
        self.down_proj = dense(inner, hidden)

    def construct(self, x: Tensor) -> Tensor:
        """x [T, hidden] -> the same."""
        gate = self.gate_proj(x)
        return self.down_proj(gate * ops.sigmoid(gate) * self.up_proj(x))


class DecoderLayer(nn.Cell):
    """Attention, then the feed-forward block."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, epsilon = config["hidden_size"], config["rms_norm_eps"]
        self.input_layernorm = RmsNorm(hidden, epsilon)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RmsNorm(hidden, epsilon)
        self.mlp = Mlp(config)

    def construct(
        self, hidden_states: Tensor, cos: Tensor, sin: Tensor, mask: Tensor
    ) -> tuple[Tensor]:
        """hidden_states [T, hidden] -> the same, as the tuple that Golden Stick expects."""
        x = hidden_states
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return (x + self.mlp(self.post_attention_layernorm(x)),)


class Decoder(nn.Cell):
    """Token ids to normalised hidden states."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.embed_tokens = Weight(config["vocab_size"], config["hidden_size"])
        layers = range(config["num_hidden_layers"])
        self.layers = nn.CellList([DecoderLayer(config) for _ in layers])
        self.norm = RmsNorm(config["hidden_size"], config["rms_norm_eps"])
        parameters = config.get("rope_parameters") or config
        base, dim = float(parameters["rope_theta"]), config["head_dim"]
        self.frequencies = base ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)

    def construct(self, ids: np.ndarray) -> Tensor:
        """ids [T] -> [T, hidden]."""
        count = len(ids)
        angles = np.outer(np.arange(count), self.frequencies)
        angles = np.concatenate((angles, angles), -1)
        cos, sin = (Tensor(part.astype(np.float32)) for part in (np.cos(angles), np.sin(angles)))
        mask = Tensor(np.triu(np.full((count, count), -1e30, np.float32), 1))
        x = self.embed_tokens.weight[Tensor(ids, dtype.int32)]
        for layer in self.layers:
            x = layer(x, cos, sin, mask)[0]
        return self.norm(x)


class Network(nn.Cell):
    """The decoder; its head is the embedding."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.model = Decoder(config)

    def construct(self, ids: np.ndarray) -> Tensor:
        """ids [T] -> logits [T, vocabulary]."""
        return ops.matmul(self.model(ids), self.model.embed_tokens.weight.swapaxes(0, 1))


class Qwen3Twin(MindOneModel):
    """What Golden Stick asks of a model."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        if config["model_type"] != "qwen3" or not config["tie_word_embeddings"]:
            raise ValueError(f"{folder}: expected a Qwen3 whose head is its embedding")
        self.network = Network(config)
        self.num_attention_heads = config["num_attention_heads"]
        self.num_key_value_heads = config["num_key_value_heads"]
        self._original_sf_path = str(folder)
        self._load(read_weights(folder))

    def forward(self, item: dict[str, Any], max_new_tokens: int = 1) -> Tensor:
        """One sample of the calibration data."""
        return self.network(np.array(item["input_ids"]).reshape(-1))

    def get_layers_for_smooth(self, layer: DecoderLayer) -> list[SmoothLayerInfo]:
        """What computes an input, and the linear layers that take it."""
        attention, mlp = layer.self_attn, layer.mlp
        return [
            SmoothLayerInfo(
                layer.input_layernorm, [attention.q_proj, attention.k_proj, attention.v_proj]
            ),
            SmoothLayerInfo(attention.v_proj, [attention.o_proj]),
            SmoothLayerInfo(layer.post_attention_layernorm, [mlp.gate_proj, mlp.up_proj]),
            SmoothLayerInfo(mlp.up_proj, [mlp.down_proj]),
        ]

    def _transformer_layers(self) -> list[type]:
        return [DecoderLayer]

    def _load(self, weights: dict[str, np.ndarray]) -> None:
        parameters = self.network.parameters_dict()
        if parameters.keys() != weights.keys():
            raise ValueError(f"other tensors: {sorted(parameters.keys() ^ weights.keys())}")
        for name, parameter in parameters.items():
            parameter.set_data(Tensor(weights[name]))
