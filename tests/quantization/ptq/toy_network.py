# SPDX-License-Identifier: Apache-2.0
"""The random network of tests/fixtures/golden_stick_1.4.1 in numpy, with its calibration data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from vllm_mindspore.model_executor.models.layout import Linear
from vllm_mindspore.quantization.ptq.batches import Batch, OnCache, OnInput
from vllm_mindspore.quantization.ptq.structure import Group, Rows

Floats = npt.NDArray[np.float32]

HIDDEN, INNER, VOCAB, LAYERS = 64, 128, 128, 2
_SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN, HIDDEN),
    "self_attn.v_proj": (HIDDEN, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
_WRITTEN = Path(__file__).parents[2] / "fixtures" / "golden_stick_1.4.1"


def written(kind: str) -> dict[str, npt.NDArray[Any]]:
    """What Golden Stick wrote."""
    found: dict[str, npt.NDArray[Any]] = load_file(
        _WRITTEN / kind / "quant-model-00001-of-00001.safetensors"
    )
    return found


def groups(index: int) -> list[Group]:
    """Of a layer."""
    layer = f"model.layers.{index}"

    def linears(inner: int, outer: int, *names: str) -> tuple[Linear, ...]:
        return tuple(Linear(f"{layer}.{name}_proj", inner, outer) for name in names)

    rows = Rows(f"{layer}.mlp.up_proj", 0, INNER)
    norms = [f"{layer}.{name}_layernorm.weight" for name in ("input", "post_attention")]
    qkv = (f"self_attn.{name}" for name in "qkv")
    return [
        Group(linears(HIDDEN, HIDDEN, *qkv), norm=norms[0]),
        Group(linears(HIDDEN, HIDDEN, "self_attn.o")),
        Group(linears(HIDDEN, INNER, "mlp.gate", "mlp.up"), norm=norms[1]),
        Group(linears(INNER, HIDDEN, "mlp.down"), rows=rows),
    ]


class ToyLayer:
    """One layer: attention without softmax, then a gated block."""

    def __init__(self, index: int, arrays: dict[str, Floats]) -> None:
        self._name = f"model.layers.{index}"
        self._names = [group.names for group in groups(index)]
        self.arrays = arrays
        self.on_input: OnInput | None = None
        self.on_cache: OnCache | None = None

    def run(self, hidden: Floats, batch: Batch) -> Floats:
        """hidden [T, HIDDEN] -> the same."""
        del batch  # every token stands alone
        x = self._see(0, self._norm("input", hidden))
        query, key, value = (self._linear(f"self_attn.{name}_proj", x) for name in "qkv")
        if self.on_cache is not None:
            self.on_cache(key, value)
        attended = self._see(1, value + np.float32(0.1) * query * key)
        hidden = hidden + self._linear("self_attn.o_proj", attended)
        x = self._see(2, self._norm("post_attention", hidden))
        gate = self._linear("mlp.gate_proj", x)
        activated = gate / (1 + np.exp(-gate)) * self._linear("mlp.up_proj", x)
        return hidden + self._linear("mlp.down_proj", self._see(3, activated))

    def _norm(self, name: str, x: Floats) -> Floats:
        weight = self.arrays[f"{self._name}.{name}_layernorm.weight"]
        normed: Floats = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(1e-6)) * weight
        return normed

    def _linear(self, name: str, x: Floats) -> Floats:
        y: Floats = x @ self.arrays[f"{self._name}.{name}.weight"].T
        return y

    def _see(self, group: int, x: Floats) -> Floats:
        replaced = None if self.on_input is None else self.on_input(self._names[group], x)
        return x if replaced is None else replaced


class ToyNetwork:
    """Its layers, and the embedded calibration data."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        table = rng.standard_normal((VOCAB, HIDDEN)).astype(np.float32)
        self.layers = []
        for index in range(LAYERS):
            arrays: dict[str, Floats] = {}
            for name, shape in _SHAPES.items():
                values = (rng.standard_normal(shape) * 0.05).astype(np.float32)
                arrays[f"model.layers.{index}.{name}.weight"] = values
            for norm in ("input", "post_attention"):
                name = f"model.layers.{index}.{norm}_layernorm.weight"
                arrays[name] = np.ones(HIDDEN, np.float32)
            self.layers.append(ToyLayer(index, arrays))
        rng.standard_normal((VOCAB, HIDDEN))  # the head
        samples = [rng.integers(3, VOCAB, size=(16,)) for _ in range(2)]
        self.hidden = [
            (Batch((16,), sample.astype(np.int32)), table[sample].copy()) for sample in samples
        ]
