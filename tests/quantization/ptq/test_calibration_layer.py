# SPDX-License-Identifier: Apache-2.0
"""Layers one operator at a time: transformers' hidden states, and the inputs of linear layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mindspore as ms
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.e2e.checkpoints import SPECS
from tests.quantization.ptq.conftest import FloatFolder
from vllm_mindspore.quantization.ptq.batches import Batch, batches
from vllm_mindspore.quantization.ptq.calibration_layer import (
    CalibrationLayers,
    one_operator_at_a_time,
)
from vllm_mindspore.quantization.ptq.float_checkpoint import FloatCheckpoint
from vllm_mindspore.quantization.ptq.structure import layer_groups

# float32 sums in another order, through three layers.
RELATIVE = 2e-5

SAMPLES = [
    np.random.default_rng(seed).integers(1, 500, size).tolist()
    for seed, size in enumerate((5, 17, 40, 16))
]


@pytest.fixture(autouse=True)
def _runtime(mindspore_runtime: None) -> Iterator[None]:
    with one_operator_at_a_time():
        yield


def test_batches_hold_whole_samples() -> None:
    found = batches(SAMPLES, 40)
    assert [batch.lengths for batch in found] == [(5, 17), (40,), (16,)]
    assert [ids for batch in found for ids in batch.token_ids.tolist()] == sum(SAMPLES, [])  # noqa: RUF017


def test_the_mode_before_is_restored() -> None:
    ms.set_context(mode=ms.GRAPH_MODE)
    with one_operator_at_a_time():
        assert ms.get_context("mode") == ms.PYNATIVE_MODE
    assert ms.get_context("mode") == ms.GRAPH_MODE


ALWAYS = ("qwen3", "glm4", "llama-biases")
CASES = [pytest.param(name, marks=[] if name in ALWAYS else [pytest.mark.full]) for name in SPECS]


@pytest.mark.parametrize("name", CASES)
def test_hidden_states_are_those_of_transformers(name: str, float_folder: FloatFolder) -> None:
    """So are keys and values, and the inputs that are seen are those of the groups that
    structure.py names."""
    folder = float_folder(name)
    checkpoint = FloatCheckpoint(folder)
    layers = CalibrationLayers(checkpoint, max(map(len, SAMPLES)))
    (batch,) = batches(SAMPLES, 1000)
    hidden = checkpoint.rows(batch.token_ids)
    cached: list[tuple[np.ndarray, np.ndarray]] = []
    for index in range(checkpoint.config.num_layers):
        layer = layers.layer(index)
        seen: dict[tuple[str, ...], int] = {}

        def note(names: tuple[str, ...], x: np.ndarray, seen: Any = seen) -> None:
            seen[names] = x.shape[1]
            assert len(x) == sum(map(len, SAMPLES))

        layer.on_input = note
        layer.on_cache = lambda keys, values: cached.append((keys, values))
        hidden = layer.run(hidden, batch)
        groups = layer_groups(checkpoint.config, index)
        assert seen == {group.names: group.in_features for group in groups}
        for group in groups:
            for linear, size in group.parts():
                assert layer.arrays[f"{linear}.weight"].shape == (size, group.in_features)
                assert (f"{linear}.bias" in layer.arrays) is group.bias
    found = layers.final_norm(hidden)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().model
    with torch.no_grad():
        outputs = [model(torch.tensor([s]), use_cache=True) for s in SAMPLES]
    assert_close(found, torch.cat([output.last_hidden_state[0] for output in outputs]))
    for index, both in enumerate(cached):
        for part, rows in zip(("keys", "values"), both, strict=True):
            layers_of = [getattr(output.past_key_values.layers[index], part) for output in outputs]
            heads = torch.cat([entry[0].transpose(0, 1) for entry in layers_of])
            assert_close(rows, heads.reshape(len(heads), -1))


def assert_close(found: np.ndarray, expected: torch.Tensor) -> None:
    assert found.shape == tuple(expected.shape)
    error = np.abs(found - expected.numpy()).max() / np.abs(expected.numpy()).max()
    assert error < RELATIVE


def test_weights_and_inputs_can_be_changed(tiny: FloatCheckpoint) -> None:
    layers = CalibrationLayers(tiny, 8)
    layer = layers.layer(0)
    ids = np.arange(8, dtype=np.int32)
    batch, hidden = Batch((8,), ids), tiny.rows(ids)
    kept = hidden.copy()
    before = layer.run(hidden, batch)
    down = "model.layers.0.mlp.down_proj"
    weight = layer.arrays[f"{down}.weight"]
    weight *= 2

    def halve(names: tuple[str, ...], x: np.ndarray) -> np.ndarray | None:
        return x / 2 if names == (down,) else None

    changed = layer.run(hidden, batch)
    assert np.abs(changed - before).max() > 0.01
    layer.on_input = halve
    np.testing.assert_allclose(layer.run(hidden, batch), before, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(hidden, kept)
