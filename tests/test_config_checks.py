# SPDX-License-Identifier: Apache-2.0
"""Every unsupported feature is refused with a message, in vLLM's real configuration path."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from vllm import PoolingParams, SamplingParams
from vllm.config import KVTransferConfig, VllmConfig
from vllm.engine.arg_utils import EngineArgs

from vllm_mindspore import config_checks


def configure(model: Path, **arguments: Any) -> VllmConfig:
    return EngineArgs(model=str(model), **arguments).create_engine_config()


NOT_SUPPORTED = r"is not supported by vllm-mindspore: .+\. .+"
NGRAM = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}
CONNECTOR = KVTransferConfig(kv_connector="ExampleConnector", kv_role="kv_both")
WINDOW = {"use_sliding_window": True, "sliding_window": 4096}


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ({"tensor_parallel_size": 2}, "tensor_parallel_size=2"),
        ({"pipeline_parallel_size": 2}, "pipeline_parallel_size=2"),
        ({"data_parallel_size": 2}, "data_parallel_size=2"),
        ({"prefill_context_parallel_size": 2}, "prefill_context_parallel_size=2"),
        ({"distributed_executor_backend": "external_launcher"}, "='external_launcher'"),
        ({"enable_lora": True}, "LoRA"),
        ({"speculative_config": NGRAM}, "Speculative decoding"),
        ({"runner": "pooling"}, "runner='pooling'"),
        ({"kv_transfer_config": CONNECTOR}, "A KV connector"),
        ({"kv_offloading_size": 1.0}, "KV cache offloading"),
        ({"weight_transfer_config": {"backend": "nccl"}}, "Weight transfer"),
        ({"cpu_offload_gb": 1}, "Weight offloading"),
        ({"offload_group_size": 2}, "Weight offloading"),
        ({"quantization": "golden-stick"}, "quantization='golden-stick'"),
        ({"quantization": "SmoothQuant"}, "quantization='smoothquant'"),
        ({"quantization": "ascend"}, "quantization='ascend'"),
        ({"quantization": "awq"}, "quantization='awq'"),
        ({"quantization": "fp8"}, "quantization='fp8'"),
        (
            {"hf_overrides": {"quantization_config": {"quant_method": "golden-stick"}}},
            "quantization='golden-stick'",
        ),
        ({"load_format": "sparse_quant"}, "load_format='sparse_quant'"),
        ({"load_format": "pt"}, "load_format='pt'"),
        ({"load_format": "BOGUS"}, "load_format='bogus'"),
        ({"kv_cache_dtype": "fp8"}, "kv_cache_dtype='fp8'"),
        ({"kv_cache_dtype": "float16"}, "kv_cache_dtype='float16'"),
        ({"block_size": 8}, "block_size=8"),
        ({"block_size": 100}, "block_size=100"),
        ({"hf_overrides": WINDOW}, r"Sliding-window attention \(window 4096"),
        ({"enable_prompt_embeds": True}, "Prompt embedding"),
        ({"model_impl": "transformers"}, "model_impl='transformers'"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_is_refused(tiny_model: Path, arguments: dict[str, Any], asked: str) -> None:
    with pytest.raises(ValueError, match=f"{asked}.* ?{NOT_SUPPORTED}"):
        configure(tiny_model, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"enable_expert_parallel": True}, "Number of experts"),
        ({"enable_sleep_mode": True}, "Sleep mode is not supported"),
        ({"distributed_executor_backend": "ray"}, "Ray"),
        (
            {"hf_overrides": {"architectures": ["Qwen2_5_VLForConditionalGeneration"]}},
            r"Qwen2_5_VL.*not supported.*LlamaForCausalLM.*Qwen3ForCausalLM",
        ),
    ],
    ids=["expert_parallel", "sleep_mode", "ray", "architecture"],
)
def test_is_refused_by_vllm_itself(
    tiny_model: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        configure(tiny_model, **arguments)


def test_second_model_runner_protocol_is_refused(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(tiny_model)
    # Not by its variable: vLLM stops reading those once an engine has run in this process.
    monkeypatch.setattr(VllmConfig, "use_v2_model_runner", True)
    with pytest.raises(ValueError, match=f"protocol.*{NOT_SUPPORTED}"):
        config_checks.check(config)


@pytest.mark.parametrize("name", ["quant_model_description.json", "quantization_description.json"])
def test_quantized_folder_is_refused(tiny_model: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "quantized"
    shutil.copytree(tiny_model, folder)
    (folder / name).write_text("{}")
    with pytest.raises(ValueError, match=f"{name}.*quantized checkpoint.*{NOT_SUPPORTED}"):
        configure(folder)


@pytest.mark.parametrize("size", config_checks.BLOCK_SIZES)
def test_block_sizes(tiny_model: Path, size: int) -> None:
    assert configure(tiny_model, block_size=size).cache_config.block_size == size


def test_block_size_default(tiny_model: Path) -> None:
    assert configure(tiny_model).cache_config.block_size == 16


def test_disabled_sliding_window_limits_the_context(tiny_model: Path) -> None:
    config = configure(tiny_model, hf_overrides=WINDOW, disable_sliding_window=True)
    assert config.model_config.max_model_len == 4096


def test_dummy_weights_and_model_dtype_of_the_cache(tiny_model: Path) -> None:
    config = configure(tiny_model, load_format="dummy", kv_cache_dtype="bfloat16")
    assert config.load_config.load_format == "dummy"


def test_enforce_eager_is_accepted_and_said_to_have_no_effect(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(config_checks.logger, "info", said.append)
    configure(tiny_model, enforce_eager=True)
    assert any("enforce_eager has no effect" in line for line in said)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_auto_keeps_the_dtype_of_the_checkpoint(
    tiny_model: Path, tmp_path: Path, dtype: str
) -> None:
    folder = tmp_path / dtype
    shutil.copytree(tiny_model, folder)
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**described, "dtype": dtype}))
    assert configure(folder).model_config.dtype == getattr(torch, dtype)


def test_pooling_request_is_refused() -> None:
    with pytest.raises(ValueError, match=f"pooling request {NOT_SUPPORTED}"):
        config_checks.check_request({"type": "token", "prompt_token_ids": [1]}, PoolingParams())


def test_embedding_prompt_is_refused() -> None:
    prompt: Any = {"type": "embeds", "prompt_embeds": torch.zeros(1, 8)}
    with pytest.raises(ValueError, match=f"'embeds' {NOT_SUPPORTED}"):
        config_checks.check_request(prompt, SamplingParams())


def test_token_prompt_passes() -> None:
    config_checks.check_request({"type": "token", "prompt_token_ids": [1]}, SamplingParams())
