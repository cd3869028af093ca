# SPDX-License-Identifier: Apache-2.0
"""The options and variables of vLLM that nothing here reads, as data: setting one is refused.

A row names a field of VllmConfig or a section of it, which stands for every field below, those of a
newer vLLM included. Remove a row together with the reason for it: once something reads the option.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import reduce
from typing import Any

WORKER = "vllm_mindspore.worker.worker.MindSporeWorker"


@dataclass(frozen=True)
class Unused:
    """One option, refused unless it has vLLM's default or a value of ANYWAY.

    Attributes:
        path: where VllmConfig holds it: a field, or a section for all of its fields.
        advice: what to do instead.
    """

    path: str
    advice: str

    def used(self, vllm_config: Any) -> Iterator[tuple[str, object]]:
        """(path, value) of each field that the user set to something without effect."""
        *owners, name = self.path.split(".")
        owner = reduce(getattr, owners, vllm_config)
        field = next(field for field in dataclasses.fields(owner) if field.name == name)
        yield from _differences(self.path, getattr(owner, name), default_of(field))


@dataclass(frozen=True)
class UnusedVariable:
    """An environment variable of vLLM, refused unless it is unset, empty or `accepted`."""

    name: str
    advice: str
    accepted: tuple[str, ...] = ("0",)


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The value a field of a vLLM configuration has when nobody sets it."""
    default: Any = field.default
    if hasattr(default, "get_default"):  # pydantic's description of the field
        return default.get_default(call_default_factory=True)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return default


def _differences(path: str, value: Any, default: Any) -> Iterator[tuple[str, object]]:
    if dataclasses.is_dataclass(value) and type(value) is type(default):
        for field in dataclasses.fields(value):
            if field.init:
                name = field.name
                yield from _differences(
                    f"{path}.{name}", getattr(value, name), getattr(default, name)
                )
        return
    printed = value.name if isinstance(value, Enum) else value
    if value != default and printed not in ANYWAY.get(path, ()):
        yield path, printed


def _drop(section: str, *names: str) -> tuple[Unused, ...]:
    """Rows of fields whose command-line option has the field's own name."""
    return tuple(Unused(f"{section}.{name}", f"Drop --{name.replace('_', '-')}.") for name in names)


# Besides vLLM's defaults: what asks for what happens anyway, or what vLLM resolves a default to.
ANYWAY: dict[str, tuple[object, ...]] = {
    "parallel_config.worker_cls": (WORKER,),
    "parallel_config.enable_batch_sharded_sampling": (False,),
    "parallel_config.disable_nccl_for_dp_synchronization": (True, False),
    "parallel_config.dcp_comm_backend": ("ag_rs",),
    "parallel_config.dcp_q_replicate": (False,),
    "load_config.safetensors_load_strategy": ("lazy",),
    "load_config.device": ("cpu",),
    "optimization_level": ("O0",),
    "compilation_config.mode": ("NONE",),
    "compilation_config.backend": ("inductor", "eager"),
    "compilation_config.cudagraph_mode": ("NONE",),
    "compilation_config.cudagraph_capture_sizes": ([],),
    "compilation_config.max_cudagraph_capture_size": (0,),
    "kernel_config.enable_flashinfer_autotune": (False,),
    "kernel_config.enable_jit_warmup": (False,),  # vLLM's meaning of --enforce-eager
}

UNUSED = (
    *_drop(
        "model_config",
        *("quantization_config", "allow_deprecated_quantization"),
        *("return_sampling_mask", "enable_trace_replay"),
        *("sleep_preserve_parameter_names", "sleep_mode_offload_cudagraph"),
        *("enable_nccl_comm_suspend", "enable_cumem_allocator"),
    ),
    Unused(
        "model_config.sleep_mode_backend", "Leave it alone: the worker frees its cache by itself."
    ),
    Unused("model_config.model_class_overrides", "Drop it: models are those of this package."),
    *_drop(
        "cache_config",
        *("kv_cache_dtype_skip_layers", "kv_sharing_fast_prefill", "kv_offloading_backend"),
        *("mamba_block_size", "mamba_cache_dtype", "mamba_ssm_cache_dtype", "mamba_cache_mode"),
        *("enable_mamba_shared_prefix_checkpoint", "replayssm_buffer_len", "use_replayssm"),
    ),
    Unused("cache_config.swa_bounded_replay", "Drop --no-swa-bounded-replay."),
    *_drop(
        "parallel_config",
        *("worker_cls", "max_parallel_loading_workers", "ray_workers_use_nsight"),
        *("enable_batch_sharded_sampling", "disable_nccl_for_dp_synchronization"),
        *("distributed_timeout_seconds", "enable_fault_tolerance", "fault_tolerance_config"),
        # of mixtures of experts
        *("enable_expert_parallel", "enable_ep_weight_filter", "enable_eplb", "eplb_config"),
        *("expert_placement_strategy", "all2all_backend", "enable_elastic_ep", "enable_hc_sp"),
        *("enable_dbo", "ubatch_size"),
        *("dbo_decode_token_threshold", "dbo_prefill_token_threshold"),
        # of decode context parallelism
        *("decode_context_parallel_size", "dcp_kv_cache_interleave_size", "dcp_comm_backend"),
        *("dcp_q_replicate", "cp_kv_cache_interleave_size"),
    ),
    Unused("parallel_config.assigned_physical_gpu_ids", "Drop --device-ids."),
    *_drop("load_config", "model_loader_extra_config", "pt_load_map_location"),
    Unused(
        "load_config.safetensors_load_strategy",
        "Drop --safetensors-load-strategy: weights are mapped from their files.",
    ),
    *_drop("load_config", "safetensors_prefetch_num_threads", "safetensors_prefetch_block_size"),
    Unused("load_config.device", "Drop it from the load configuration."),
    Unused(
        "offload_config",
        "Drop the offloading options: weights are in main memory, mapped from their files.",
    ),
    Unused("aux_output_config", "Drop --aux-output-config and --enable-return-routed-experts."),
    *_drop("observability_config", "cudagraph_metrics", "enable_layerwise_nvtx_tracing"),
    *_drop("observability_config", "jit_monitor_mode", "jit_monitor_verbose"),
    Unused(
        "profiler_config",
        "Drop --profiler-config: the profilers of vLLM do not see MindSpore graphs.",
    ),
    Unused("mamba_config", "Drop --mamba-config and the --mamba options."),
    Unused("engram_config", "Drop --engram-config."),
    Unused("diffusion_config", "Drop --diffusion-config."),
    Unused("ec_manager_config", "Drop --ec-manager-config."),
    Unused("performance_mode", "Drop --performance-mode."),
)

# vLLM puts its own values into these early on, so they are checked before that.
UNUSED_EARLY = (
    Unused("compilation_config", "Drop it: MindSpore compiles the graph, without CUDA graphs."),
    Unused("optimization_level", "Use -O0 or drop it: MindSpore compiles the graph."),
    Unused("attention_config", "Drop --attention-backend and --attention-config."),
    Unused("kernel_config", "Drop --kernel-config and the backend options of kernels."),
)

_NO_TORCH_COMPILE = "Unset it: MindSpore compiles the graph."
_OWN_KERNELS = "Unset it: models run on the kernels of this package."
_OWN_THREADS = "Unset it and use VLLM_MS_NUM_THREADS."
_NO_PROFILER = "Unset it: the profilers of vLLM do not see MindSpore graphs."
_NO_COMPILED_RAY = "Unset it: the Ray executor is vLLM's second, without Ray's compiled graphs."
_NO_RAY_ENGINES = "Unset it: the engines of a server are processes of its machine."

UNUSED_VARIABLES = (
    UnusedVariable("VLLM_ATTENTION_BACKEND", _OWN_KERNELS),
    UnusedVariable("VLLM_CPU_KVCACHE_SPACE", "Unset it and use --kv-cache-memory-bytes."),
    UnusedVariable("VLLM_CPU_OMP_THREADS_BIND", _OWN_THREADS, ("auto",)),
    UnusedVariable("VLLM_CPU_NUM_OF_RESERVED_CPU", _OWN_THREADS),
    UnusedVariable("VLLM_FLOAT32_MATMUL_PRECISION", _OWN_KERNELS, ("highest",)),
    UnusedVariable("VLLM_USE_FLASHINFER_SAMPLER", "Unset it: sampling runs on torch."),
    UnusedVariable("VLLM_DISABLED_KERNELS", _OWN_KERNELS, ()),
    UnusedVariable("VLLM_USE_OINK_OPS", _OWN_KERNELS),
    UnusedVariable("VLLM_ENABLE_HPC_OPS", _OWN_KERNELS),
    UnusedVariable("VLLM_USE_HW_AGNOSTIC", _OWN_KERNELS),
    UnusedVariable("VLLM_MOE_ROUTING_SIMULATION_STRATEGY", _OWN_KERNELS, ()),
    UnusedVariable("VLLM_TUNED_CONFIG_FOLDER", _OWN_KERNELS, ()),
    UnusedVariable("VLLM_USE_BREAKABLE_CUDAGRAPH", "Unset it: there are no CUDA graphs."),
    UnusedVariable("VLLM_ENABLE_CUDAGRAPH_GC", "Unset it: there are no CUDA graphs."),
    UnusedVariable("VLLM_USE_AOT_COMPILE", _NO_TORCH_COMPILE),
    UnusedVariable("VLLM_FORCE_AOT_LOAD", _NO_TORCH_COMPILE),
    UnusedVariable("VLLM_DEBUG_DUMP_PATH", _NO_TORCH_COMPILE, ()),
    UnusedVariable("VLLM_PATTERN_MATCH_DEBUG", _NO_TORCH_COMPILE, ()),
    UnusedVariable("VLLM_COMPILE_CACHE_SAVE_FORMAT", _NO_TORCH_COMPILE, ("binary",)),
    UnusedVariable("VLLM_TORCH_PROFILER_DIR", _NO_PROFILER, ()),
    UnusedVariable("VLLM_CUSTOM_SCOPES_FOR_PROFILING", _NO_PROFILER),
    UnusedVariable("VLLM_NVTX_SCOPES_FOR_PROFILING", _NO_PROFILER),
    UnusedVariable("VLLM_GPU_SYNC_CHECK", "Unset it: there is no GPU.", ()),
    UnusedVariable("VLLM_LOG_BATCHSIZE_INTERVAL", "Unset it; read the metrics.", ("-1",)),
    UnusedVariable("VLLM_LOG_MODEL_INSPECTION", "Unset it: models are not torch modules."),
    UnusedVariable("VLLM_ENABLE_STARTUP_PLAN", "Unset it: memory is measured at every start."),
    UnusedVariable("VLLM_USE_RAY_V2_EXECUTOR_BACKEND", _NO_COMPILED_RAY, ("1",)),
    UnusedVariable("VLLM_USE_RAY_COMPILED_DAG_CHANNEL_TYPE", _NO_COMPILED_RAY, ("auto",)),
    UnusedVariable("VLLM_USE_RAY_COMPILED_DAG_OVERLAP_COMM", _NO_COMPILED_RAY),
    UnusedVariable("VLLM_USE_RAY_WRAPPED_PP_COMM", _NO_COMPILED_RAY, ("1",)),
    UnusedVariable("VLLM_RAY_DP_PACK_STRATEGY", _NO_RAY_ENGINES, ("strict",)),
    UnusedVariable("VLLM_RAY_DP_PLACEMENT_NODE_IPS", _NO_RAY_ENGINES, ()),
)
