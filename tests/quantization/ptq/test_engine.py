# SPDX-License-Identifier: Apache-2.0
"""Whole models quantized part by part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.quantization.ptq.conftest import FloatFolder
from tests.quantization.ptq.jobs import SAMPLES, make_job
from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.description import FLOAT, SPARSE, STATIC, WEIGHT_INT8, Tool
from vllm_mindspore.quantization.ptq import engine, linears
from vllm_mindspore.quantization.ptq.float_checkpoint import FloatCheckpoint
from vllm_mindspore.quantization.ptq.job import Job
from vllm_mindspore.quantization.ptq.policy import Suppression
from vllm_mindspore.quantization.ptq.sparsity import Method, Pattern, Sparsity
from vllm_mindspore.quantization.ptq.work_folder import WorkFolder

pytestmark = pytest.mark.usefixtures("mindspore_runtime")


def run(job: Job, folder: Path) -> dict[str, torch.Tensor]:
    work = WorkFolder(folder, job.fingerprint())
    finished: list[str] = []
    engine.run(job, work, finished.append)
    assert finished == job.parts()
    found = {e.name: e.read() for part in job.parts() for e in work.entries(part)}
    work.close()
    return found


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("qwen3", Suppression.SMOOTH),  # grouped heads
        pytest.param("glm", Suppression.SMOOTH, marks=pytest.mark.full),  # one tensor, biases
        pytest.param("llama-biases", Suppression.SMOOTH, marks=pytest.mark.full),
        pytest.param("glm4", Suppression.SMOOTH, marks=pytest.mark.full),
    ],
)
def test_smoothing_keeps_the_function(
    name: str, method: Suppression, float_folder: FloatFolder, tmp_path: Path
) -> None:
    """transformers computes the same logits with smoothed weights, int8 weights aside: what is
    between them and those of the float model is what int8 weights without smoothing cost."""
    folder = float_folder(name)
    expected = logits(folder, {})
    errors = {}
    for tried in (method, Suppression.NONE):
        stored = run(make_job(folder, STATIC, tried), tmp_path / tried.value)
        errors[tried] = float(
            (logits(folder, restored(stored)) - expected).norm() / expected.norm()
        )
    assert 1e-4 < errors[method] < 2 * errors[Suppression.NONE] < 0.2


def restored(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights that the tensors of a checkpoint stand for."""
    weights = {}
    for tensor, values in stored.items():
        module, _, last = tensor.rpartition(".")
        if last.startswith("kv_cache"):
            continue
        if f"{module}.weight_scale" not in stored:
            weights[tensor] = values
        elif last == "weight":
            tensors: linears.Tensors = {
                "weight": values.numpy(),
                "weight_scale": stored[f"{module}.weight_scale"].numpy(),
            }
            weights[tensor] = torch.from_numpy(linears.float_weight(tensors, STATIC))
        elif last == "bias":
            weights[tensor] = values
    return weights


def model_with(folder: Path, weights: dict[str, torch.Tensor]) -> Any:
    """transformers' model with some weights replaced."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    state = model.state_dict()
    for name, values in weights.items():
        assert state[name].shape == values.shape
        state[name].copy_(values)
    return model


@torch.no_grad()
def logits(folder: Path, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """Of transformers' model with some weights replaced."""
    found: torch.Tensor = model_with(folder, weights)(torch.tensor(SAMPLES)).logits
    return found


@pytest.mark.parametrize(
    ("kind", "sparsity"),
    [
        (STATIC, None),
        (SPARSE, Sparsity(0.6, Method.SPARSEGPT)),
        pytest.param(SPARSE, Sparsity(0.5, Method.WANDA, Pattern(2, 4)), marks=pytest.mark.full),
        pytest.param(SPARSE, Sparsity(0.5, Method.MAGNITUDE), marks=pytest.mark.full),
    ],
)
def test_golden_sticks_identities_hold_exactly(
    kind: str, sparsity: Sparsity | None, float_folder: FloatFolder, tmp_path: Path
) -> None:
    job = make_job(float_folder("qwen3"), kind, Suppression.SMOOTH, head=True, sparsity=sparsity)
    stored = run(job, tmp_path / "work")
    modules = [name.removesuffix(".deq_scale") for name in stored if name.endswith(".deq_scale")]
    assert len(modules) == 22  # seven of each layer, and the head
    for module in modules:
        part = {
            name.rpartition(".")[2]: values.numpy()
            for name, values in stored.items()
            if name.startswith(f"{module}.")
        }
        scale, offset = part["input_scale"], part["input_offset"]
        assert (scale == scale[0]).all()
        assert (offset == offset[0]).all()
        np.testing.assert_array_equal(part["deq_scale"], scale[0] * part["weight_scale"])
        sums = part["weight"].astype(np.int64).sum(-1)
        np.testing.assert_array_equal(part["quant_bias"], -int(offset[0]) * sums)
        share = (part["weight"] == 0).mean()
        if sparsity is None or module == "lm_head":
            assert share < 0.1
        else:  # and those that round to zero
            assert sparsity.share - 0.002 <= share < sparsity.share + 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stored_scales_are_those_that_were_computed_with(
    dtype: torch.dtype, float_folder: FloatFolder, tmp_path: Path
) -> None:
    folder = float_folder("qwen3", dtype)
    stored = run(make_job(folder, STATIC, Suppression.SMOOTH), tmp_path / "work")
    module = "model.layers.1.mlp.down_proj"
    assert stored[f"{module}.input_scale"].dtype == dtype
    assert stored["model.layers.1.input_layernorm.weight"].dtype == dtype
    scale = stored[f"{module}.input_scale"][0].float().numpy()
    weight_scale = stored[f"{module}.weight_scale"].float().numpy()
    deq_scale = stored[f"{module}.deq_scale"].numpy()
    if dtype == torch.float16:  # the form of Ascend's float16 kernels
        assert deq_scale.dtype == np.int64
        deq_scale = primitives.decode_deq_scale(deq_scale)
    np.testing.assert_array_equal(deq_scale, scale * weight_scale)


def test_finished_parts_are_not_made_again(float_folder: FloatFolder, tmp_path: Path) -> None:
    folder = float_folder("qwen3")
    job = make_job(folder, STATIC, Suppression.SMOOTH, head=True)
    whole = WorkFolder(tmp_path / "whole", job.fingerprint())
    engine.run(job, whole, lambda part: None)
    resumed = WorkFolder(tmp_path / "resumed", job.fingerprint())

    def stop(part: str) -> None:
        if part == "layer-00001":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.run(job, resumed, stop)
    again: list[str] = []
    engine.run(job, resumed, again.append)
    assert again == ["layer-00002", "head"]
    for part in job.parts():
        for ending in ("safetensors", "json"):
            files = [work.folder / f"{part}.{ending}" for work in (whole, resumed)]
            assert files[0].read_bytes() == files[1].read_bytes()


def test_scales_of_the_cache_are_those_of_the_smoothed_layer(
    float_folder: FloatFolder, tmp_path: Path
) -> None:
    """127 of them are the largest of what transformers caches: exactly for float layers, but for
    the rounding of weights for quantized ones, whose values smoothing divides."""
    folder = float_folder("qwen3")
    jobs = {
        "float": make_job(folder, FLOAT, Suppression.NONE, int8_cache=True),
        "smooth": make_job(folder, STATIC, Suppression.SMOOTH, int8_cache=True),
    }
    stored = {name: run(job, tmp_path / name) for name, job in jobs.items()}
    exact, smoothed = (cached(folder, restored(found)) for found in stored.values())
    changed = []
    for module, largest in exact.items():
        scales = [found[f"{module}.kv_cache_scale"] for found in stored.values()]
        assert not any(found[f"{module}.kv_cache_offset"].any() for found in stored.values())
        torch.testing.assert_close(127 * scales[0], largest, rtol=1e-4, atol=0)
        torch.testing.assert_close(127 * scales[1], smoothed[module], rtol=0.1, atol=0)
        if module.endswith("v_proj"):
            changed.append(scales[1] / scales[0])
        else:
            torch.testing.assert_close(*scales, rtol=1e-4, atol=0)
    factors = torch.cat(changed)
    assert factors.max() > 1.5 * factors.min()


@torch.no_grad()
def cached(folder: Path, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Projection -> largest magnitude of each channel that transformers caches for it."""
    cache = model_with(folder, weights)(torch.tensor(SAMPLES), use_cache=True).past_key_values
    return {
        f"model.layers.{index}.self_attn.{name}_proj": heads.transpose(1, 2)
        .flatten(0, 1)
        .flatten(1)
        .abs()
        .amax(0)
        for index, layer in enumerate(cache.layers)
        for name, heads in (("k", layer.keys), ("v", layer.values))
    }


def test_weights_only(float_folder: FloatFolder, tmp_path: Path) -> None:
    folder = float_folder("qwen3")
    job = make_job(folder, WEIGHT_INT8, Suppression.NONE, Tool.MODELSLIM)
    stored = run(job, tmp_path / "work")
    name = "model.layers.0.mlp.up_proj"
    assert {t.rpartition(".")[2] for t in stored if t.startswith(f"{name}.")} == {
        "weight",
        "weight_scale",
        "weight_offset",
    }
    assert stored[f"{name}.weight_scale"].shape == (200, 1)
    original = FloatCheckpoint(folder).single(f"{name}.weight", (200, 96))
    restored = stored[f"{name}.weight"].float() * stored[f"{name}.weight_scale"]
    step = stored[f"{name}.weight_scale"].numpy()
    assert (np.abs(restored.numpy() - original) <= 0.501 * step).all()


def test_jobs_that_cannot_be_done(float_folder: FloatFolder) -> None:
    job = make_job(float_folder("qwen3"), STATIC, Suppression.NONE)
    for samples, message in (([[1, 512]], "from 1 to 512; the model has 512"), ([], "there is no")):
        with pytest.raises(ValueError, match=message):
            Job(job.checkpoint, job.policies, samples, job.tool)


def test_the_fingerprint_changes_with_everything_it_depends_on(float_folder: FloatFolder) -> None:
    folder = float_folder("qwen3")
    job = make_job(folder, STATIC, Suppression.NONE)
    assert job.fingerprint() == make_job(folder, STATIC, Suppression.NONE).fingerprint()
    others = [
        make_job(folder, STATIC, Suppression.SMOOTH),
        make_job(folder, STATIC, Suppression.NONE, Tool.MODELSLIM),
        make_job(float_folder("qwen3", torch.bfloat16), STATIC, Suppression.NONE),
        Job(job.checkpoint, job.policies, SAMPLES[1:], job.tool),
        Job(job.checkpoint, job.policies, job.samples, job.tool, int8_cache=True),
    ]
    assert all(other.fingerprint() != job.fingerprint() for other in others)
