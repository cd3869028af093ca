# SPDX-License-Identifier: Apache-2.0
"""The Native backend on the bundled model, against transformers with the same folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.conftest import Configure
from vllm_mindspore.device.soc import Device
from vllm_mindspore.model_executor.backends import native
from vllm_mindspore.model_executor.backends.base import Backend, CacheShape
from vllm_mindspore.model_executor.backends.native import NativeBackend
from vllm_mindspore.worker.input_batch import StepInputs, build_step_inputs, dummy_step_inputs
from vllm_mindspore.worker.kv_cache import KVCache

BLOCK, NUM_BLOCKS = 16, 12
PROMPTS = ([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3], [2, 7, 1])
BLOCKS = np.array([[5, 2, 8], [7, 1, 3]], np.int32)
# Both sides compute in fp32, in another order.
RELATIVE_ERROR = 1e-4


@pytest.fixture(scope="module")
def backend(configure: Configure) -> Backend:
    """The bundled model in fp32 over a small cache."""
    loaded = NativeBackend(configure())
    loaded.load()
    bind(loaded)
    return loaded


@pytest.fixture(scope="module")
def reference(tiny_model: Path) -> PreTrainedModel:
    """The same model in torch."""
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


@pytest.mark.parametrize(
    ("device", "dtype", "asked"),
    [
        (Device.ASCEND_310P, "bfloat16", r"\(310P\) has no bfloat16; use --dtype float16"),
        (Device.ASCEND_910B, "float32", "NPUs run MindSpore's own .* refuse float32 caches"),
    ],
)
def test_dtypes_that_an_npu_lacks_are_refused(
    device: Device,
    dtype: str,
    asked: str,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native, "computing_device", lambda: device)
    with pytest.raises(ValueError, match=asked):
        NativeBackend(configure(dtype=dtype)).load()


def bind(backend: Backend) -> None:
    cache = KVCache(backend.cache_shapes(), NUM_BLOCKS, BLOCK)
    backend.bind_caches(*cache.buffers())


def step(computed: list[int], scheduled: list[int]) -> StepInputs:
    """Those tokens of both prompts."""
    tokens = np.full((2, 3 * BLOCK), -1, np.int32)
    for row, prompt in enumerate(PROMPTS):
        tokens[row, : len(prompt)] = prompt
    counts = (np.array(values, np.int32) for values in (computed, scheduled))
    return build_step_inputs(tokens, BLOCKS, *counts, BLOCK)


def expected(reference: PreTrainedModel, prompt: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return reference(torch.tensor([prompt])).logits[0].float()


def check(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert found.dtype == torch.float32
    assert found.shape == wanted.shape
    error = float((found - wanted).abs().max())
    assert error <= RELATIVE_ERROR * float(wanted.abs().max())


def test_a_mixed_step_equals_transformers(backend: Backend, reference: PreTrainedModel) -> None:
    """A prefill cut in two; the second half beside the whole of another prompt."""
    backend.forward(step([0, 0], [10, 0]))
    hidden = backend.forward(step([10, 0], [8, 3]))
    long, short = (expected(reference, prompt) for prompt in PROMPTS)
    check(backend.logits(hidden, np.arange(11, dtype=np.int32)), torch.cat([long[10:], short]))


def test_logits_come_in_the_order_of_the_rows(backend: Backend, reference: PreTrainedModel) -> None:
    hidden = backend.forward(step([0, 0], [18, 3]))
    long, short = (expected(reference, prompt) for prompt in PROMPTS)
    rows = np.array([20, 0, 17], np.int32)
    check(backend.logits(hidden, rows), torch.stack([short[2], long[0], long[17]]))


def test_every_layer_names_its_cache(backend: Backend) -> None:
    assert backend.cache_shapes() == [
        CacheShape(f"model.layers.{index}.self_attn", 2, 32, torch.float32) for index in range(4)
    ]


def test_weights_are_counted_once_with_the_tables(
    backend: Backend, reference: PreTrainedModel
) -> None:
    weights = sum(parameter.numel() for parameter in reference.parameters())
    tables = 2 * 128 * 32  # cos and sin: --max-model-len rows of the head size
    assert backend.weight_bytes == 4 * (weights + tables)


def test_a_kernel_error_says_what_was_wrong(backend: Backend) -> None:
    inputs = dummy_step_inputs(3, 1, BLOCK)
    beyond = dataclasses.replace(inputs, slot_mapping=inputs.slot_mapping + NUM_BLOCKS * BLOCK)
    with pytest.raises(RuntimeError, match=r"slot.*\n(.*\n)*.*CPU AOT kernel"):
        backend.logits(backend.forward(beyond), np.array([0], np.int32))


def test_dummy_weights_need_no_files(configure: Configure, tiny_model: Path) -> None:
    config = configure(load_format="dummy")
    config.model_config.model = str(tiny_model / "nothing")
    dummy = NativeBackend(config)
    dummy.load()
    bind(dummy)
    hidden = dummy.forward(dummy_step_inputs(5, 2, BLOCK))
    logits = dummy.logits(hidden, np.array([1, 4], np.int32))
    assert logits.shape == (2, 2048)
    assert bool(logits.isfinite().all())


def test_the_chain_refuses_fp32(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MS_FUSED_KERNELS", "0")
    with pytest.raises(ValueError, match="refuse float32 caches; use --dtype bfloat16"):
        NativeBackend(configure()).load()


def test_the_chain_runs_when_asked(
    configure: Configure, reference: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MS_FUSED_KERNELS", "0")
    chain = NativeBackend(configure(dtype="float16"))
    chain.load()
    assert "Chain" in type(chain._logits).__name__
    bind(chain)
    hidden = chain.forward(step([0, 0], [18, 3]))
    found = chain.logits(hidden, np.array([17, 20], np.int32))
    wanted = torch.stack([expected(reference, prompt)[-1] for prompt in PROMPTS])
    assert float((found - wanted).abs().max()) <= 0.01 * float(wanted.abs().max())


def test_compressed_weights_are_asked_for_and_the_folder_has_none(configure: Configure) -> None:
    """As for a model that was downloaded, which the front end has not seen."""
    config = configure()
    config.load_config.load_format = "sparse_quant"
    with pytest.raises(ValueError, match=r"its weights are not compressed.*Drop --load-format"):
        NativeBackend(config).load()
