# SPDX-License-Identifier: Apache-2.0
"""Every unsupported feature is refused with a message, in vLLM's real configuration path."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from vllm import SamplingParams
from vllm.config import CompilationMode, CUDAGraphMode, KVTransferConfig, VllmConfig
from vllm.engine.arg_utils import EngineArgs

from vllm_mindspore import config_checks
from vllm_mindspore.device import soc
from vllm_mindspore.unused_options import WORKER


def configure(model: Path, **arguments: Any) -> VllmConfig:
    return EngineArgs(model=str(model), **arguments).create_engine_config()


NOT_SUPPORTED = r"is not supported by vllm-mindspore: .+\. .+"
NGRAM = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}
NGRAM_GPU = NGRAM | {"method": "ngram_gpu"}
SYNTHETIC = NGRAM | {
    "rejection_sample_method": "synthetic",
    "synthetic_acceptance_rates": [0.5, 0.2],
}
CONNECTOR = KVTransferConfig(kv_connector="ExampleConnector", kv_role="kv_both")
WINDOW = {"use_sliding_window": True, "sliding_window": 4096}


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ({"tensor_parallel_size": 2, "enable_lora": True}, "LoRA with tensor_parallel_size=2"),
        (
            {"tensor_parallel_size": 2, "distributed_executor_backend": "ray"},
            "tensor_parallel_size=2 with Ray",
        ),
        (
            {"tensor_parallel_size": 2, "distributed_executor_backend": "uni"},
            "distributed_executor_backend='uni' with tensor_parallel_size=2",
        ),
        ({"pipeline_parallel_size": 2}, "pipeline_parallel_size=2"),
        ({"additional_config": {"graph": 1}}, "additional_config with graph"),
        ({"prefill_context_parallel_size": 2}, "prefill_context_parallel_size=2"),
        ({"distributed_executor_backend": "external_launcher"}, "='external_launcher'"),
        ({"data_parallel_backend": "ray"}, "data_parallel_backend='ray'"),
        (
            {"distributed_executor_backend": "ray", "data_parallel_size": 2},
            "data_parallel_size=2 with Ray",
        ),
        (
            {"enable_lora": True, "fully_sharded_loras": True},
            "lora_config.fully_sharded_loras=True",
        ),
        ({"enable_lora": True, "lora_dtype": "float16"}, "lora_dtype=torch.float16"),
        ({"speculative_config": NGRAM_GPU}, "method='ngram_gpu'"),
        ({"speculative_config": SYNTHETIC}, "rejection_sample_method='synthetic'"),
        ({"kv_transfer_config": CONNECTOR}, "A KV connector"),
        ({"kv_offloading_size": 1.0}, "KV cache offloading"),
        ({"weight_transfer_config": {"backend": "nccl"}}, "Weight transfer"),
        ({"quantization": "awq"}, "quantization='awq'"),
        ({"quantization": "fp8"}, "quantization='fp8'"),
        ({"load_format": "sparse_quant"}, "load_format='sparse_quant' for"),
        ({"load_format": "pt"}, "load_format='pt'"),
        ({"load_format": "BOGUS"}, "load_format='bogus'"),
        ({"kv_cache_dtype": "fp8"}, "kv_cache_dtype='fp8'"),
        ({"kv_cache_dtype": "float16"}, "kv_cache_dtype='float16'"),
        ({"kv_cache_dtype": "int8_per_token_head"}, "kv_cache_dtype='int8_per_token_head'"),
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


def test_npus_need_their_driver(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MS_DEVICE", "ascend")
    monkeypatch.setattr(soc, "_ASCEND_DRIVER", tiny_model / "none")
    with pytest.raises(ValueError, match=f"VLLM_MS_DEVICE=ascend {NOT_SUPPORTED}") as error:
        configure(tiny_model)
    assert "no Ascend driver (/dev/davinci_manager). Unset it to compute on the CPU" in str(
        error.value
    )


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ({"data_parallel_size": 2}, "data_parallel_size=2"),
        ({"distributed_executor_backend": "ray"}, "Ray"),
        ({"enable_lora": True}, "LoRA"),
        ({"enable_sleep_mode": True}, "Sleep mode"),
        ({"dtype": "float32"}, "float32"),
    ],
)
def test_npus_do_without(
    tiny_model: Path, arguments: dict[str, Any], asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MS_DEVICE", "ascend")
    monkeypatch.setattr(soc, "_ASCEND_DRIVER", tiny_model)
    with pytest.raises(ValueError, match=f"{asked} with VLLM_MS_DEVICE=ascend {NOT_SUPPORTED}"):
        configure(tiny_model, **arguments)


def test_npus_have_no_fused_nodes(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MS_DEVICE", "ascend")
    monkeypatch.setenv("VLLM_MS_FUSED_KERNELS", "1")
    monkeypatch.setattr(soc, "_ASCEND_DRIVER", tiny_model)
    with pytest.raises(ValueError, match="VLLM_MS_FUSED_KERNELS=1 with VLLM_MS_DEVICE=ascend"):
        configure(tiny_model, dtype="bfloat16")


# What vLLM's own path makes of an option that nothing reads. All are in test_unused_options.
UNUSED: dict[str, dict[str, Any]] = {
    "parallel_config.worker_cls": {"worker_cls": "elsewhere.Worker"},
    "parallel_config.assigned_physical_gpu_ids": {"device_ids": [0]},
    "attention_config.backend": {"attention_backend": "FLASH_ATTN"},
    "kernel_config.moe_backend": {"moe_backend": "triton"},
    "kernel_config.linear_backend": {"linear_backend": "triton"},
    "kernel_config.linear_backend_per_quant": {
        "kernel_config": {"linear_backend_per_quant": {"nvfp4_w4a16": "humming"}}
    },
    "cache_config.kv_sharing_fast_prefill": {"kv_sharing_fast_prefill": True},
    "cache_config.kv_cache_dtype_skip_layers": {"kv_cache_dtype_skip_layers": ["0"]},
    "cache_config.swa_bounded_replay": {"swa_bounded_replay": False},
    "load_config.safetensors_load_strategy": {"safetensors_load_strategy": "torchao"},
    "load_config.model_loader_extra_config": {"model_loader_extra_config": {"threads": 2}},
    "load_config.pt_load_map_location": {"pt_load_map_location": "cuda"},
    "observability_config.cudagraph_metrics": {"cudagraph_metrics": True},
    "observability_config.enable_layerwise_nvtx_tracing": {"enable_layerwise_nvtx_tracing": True},
    "profiler_config.profiler": {"profiler_config": {"profiler": "cuda"}},
    "compilation_config.mode": {"compilation_config": {"mode": CompilationMode.VLLM_COMPILE}},
    "compilation_config.cudagraph_mode": {
        "compilation_config": {"cudagraph_mode": CUDAGraphMode.FULL}
    },
    "compilation_config.cudagraph_capture_sizes": {"cudagraph_capture_sizes": [1, 2]},
    "compilation_config.max_cudagraph_capture_size": {"max_cudagraph_capture_size": 8},
    "compilation_config.custom_ops": {"compilation_config": {"custom_ops": ["none"]}},
    "compilation_config.backend": {"compilation_config": {"backend": "elsewhere.compile"}},
    "optimization_level": {"optimization_level": 3},
    "performance_mode": {"performance_mode": "throughput"},
    "kernel_config.sparse_indexer_topk_backend": {"sparse_indexer_topk_backend": "torch"},
    "kernel_config.ir_op_priority.rms_norm": {"ir_op_priority": {"rms_norm": ["native"]}},
    "offload_config.uva.cpu_offload_gb": {"cpu_offload_gb": 1},
    "offload_config.prefetch.offload_group_size": {"offload_group_size": 2},
    "mamba_config.backend": {"mamba_backend": "flashinfer"},
    "cache_config.mamba_cache_dtype": {"mamba_cache_dtype": "float32"},
    "aux_output_config.enable_return_routed_experts": {"enable_return_routed_experts": True},
    "parallel_config.distributed_timeout_seconds": {"distributed_timeout_seconds": 5},
    "model_config.sleep_mode_offload_cudagraph": {"sleep_mode_offload_cudagraph": True},
    "diffusion_config": {"diffusion_config": {"canvas_length": 8}},
    "observability_config.jit_monitor_mode": {"jit_monitor_mode": "error"},
}


@pytest.mark.parametrize("path", UNUSED)
def test_option_that_nothing_reads_is_refused(tiny_model: Path, path: str) -> None:
    with pytest.raises(ValueError, match=f"{path}=.* {NOT_SUPPORTED}"):
        configure(tiny_model, **UNUSED[path])


@pytest.mark.parametrize(
    "arguments",
    [
        {"worker_cls": WORKER},
        {"safetensors_load_strategy": "lazy"},
        {"compilation_config": {"mode": CompilationMode.NONE, "cudagraph_mode": "NONE"}},
        {"compilation_config": {"backend": "eager"}},
        {"optimization_level": 0},
        {"enforce_eager": True},
        {
            "trust_remote_code": True,
            "max_num_seqs": 256,
            "block_size": 128,
            "gpu_memory_utilization": 0.8,
            "max_num_batched_tokens": 16384,
            "max_model_len": 2048,
        },
    ],
    ids="-".join,
)
def test_what_happens_anyway_may_be_asked_for(tiny_model: Path, arguments: dict[str, Any]) -> None:
    config = configure(tiny_model, **arguments)
    assert config.compilation_config.mode == CompilationMode.NONE
    assert config.compilation_config.cudagraph_mode == CUDAGraphMode.NONE
    config_checks.check(config)  # as the engine process does


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"enable_expert_parallel": True}, "Number of experts"),
        (
            {"hf_overrides": {"architectures": ["Qwen2_5_VLForConditionalGeneration"]}},
            r"Qwen2_5_VL.*not supported.*LlamaForCausalLM.*Qwen3ForCausalLM",
        ),
    ],
    ids=["expert_parallel", "architecture"],
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


def test_embedding_prompt_is_refused() -> None:
    prompt: Any = {"type": "embeds", "prompt_embeds": torch.zeros(1, 8)}
    with pytest.raises(ValueError, match=f"'embeds' {NOT_SUPPORTED}"):
        config_checks.check_request(prompt, SamplingParams())


def test_token_prompt_passes() -> None:
    config_checks.check_request({"type": "token", "prompt_token_ids": [1]}, SamplingParams())


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (3, "num_attention_heads=8 cannot be divided among 3 ranks .* possible here: 1, 2, 4, 8"),
        (16, "num_attention_heads=8 cannot be divided among 16 ranks"),
    ],
)
def test_ranks_that_do_not_divide_a_model_are_told_which_would(
    tiny_model: Path, count: int, expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        configure(tiny_model, tensor_parallel_size=count)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_ranks_that_divide_a_model_are_accepted(tiny_model: Path, count: int) -> None:
    parallel = configure(tiny_model, tensor_parallel_size=count).parallel_config
    assert parallel.distributed_executor_backend == "mp"
    assert parallel.world_size == count


def test_ranks_do_not_cut_groups(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    content = {"model.layers.0.mlp.down_proj.weight": "W8A16", "group_size": 256}
    (folder / "quant_model_description.json").write_text(json.dumps(content))
    expected = "tensor_parallel_size=2 with group_size=256 .*intermediate_size=768 gives each rank"
    with pytest.raises(ValueError, match=expected):
        configure(folder, tensor_parallel_size=2)
