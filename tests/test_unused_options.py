# SPDX-License-Identifier: Apache-2.0
"""Every option of this vLLM has an owner: something reads it, or setting it is refused."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from vllm.config import ModelConfig, VllmConfig
from vllm.engine.arg_utils import EngineArgs

from vllm_mindspore import config_checks
from vllm_mindspore.unused_options import (
    ANYWAY,
    UNUSED,
    UNUSED_EARLY,
    UNUSED_VARIABLES,
    Unused,
    default_of,
)

# Who reads the options that are not refused, by section; "" is VllmConfig itself. A name may be a
# whole section.
VLLM = {  # its front end, scheduler, executor or sampler, or its own resolution of defaults
    "": "scheduler_config structured_outputs_config logging_config kv_events_config"
    " reasoning_config instance_id shutdown_timeout",
    "model_config": "tokenizer tokenizer_mode trust_remote_code hf_config_path revision"
    " code_revision tokenizer_revision max_model_len spec_target_max_model_len max_logprobs"
    " disable_sliding_window skip_tokenizer_init served_model_name config_format hf_token"
    " hf_overrides generation_config override_generation_config io_processor_plugin"
    " renderer_num_workers model_weights convert allowed_local_media_path allowed_media_domains"
    # without effect in every vLLM, which says so itself
    " disable_cascade_attn",
    "cache_config": "prefix_match_unit num_gpu_blocks_override enable_prefix_caching"
    " prefix_caching_hash_algo prefix_cache_retention_interval is_attention_free sliding_window"
    " mamba_page_size_padded skip_page_size_padded",
    "parallel_config": "data_parallel_size_local data_parallel_rank data_parallel_rank_local"
    " data_parallel_master_ip data_parallel_rpc_port dp_sync_interval data_parallel_master_port"
    " data_parallel_external_lb data_parallel_hybrid_lb is_moe_model"
    " enable_shm_tensor_arena ray_runtime_env placement_group worker_extension_cls master_addr"
    " elastic_ep_max_dp_size master_port node_rank nnodes numa_bind numa_bind_nodes numa_bind_cpus"
    " cpu_distributed_timeout_seconds rank _data_parallel_master_port_list _coord_store_port"
    " _allow_auto_resolve_cp_interleave_size _api_process_count _api_process_rank",
    "device_config": "device",
    "observability_config": "show_hidden_metrics_for_version otlp_traces_endpoint"
    " collect_detailed_traces per_request_spec_decode_metrics kv_cache_metrics"
    " kv_cache_metrics_sample custom_histogram_buckets enable_mfu_metrics enable_mm_processor_stats"
    " enable_logging_iteration_details",
}
HERE = {  # this package; `parallel_config.disable_custom_all_reduce` and the bar are off anyway
    "model_config": "model dtype seed enforce_eager logprobs_mode use_fp64_gumbel"
    " logits_processors pooler_config enable_sleep_mode",
    "cache_config": "block_size gpu_memory_utilization kv_cache_memory_bytes",
    "parallel_config": "disable_custom_all_reduce data_parallel_size",
    "load_config": "download_dir ignore_patterns use_tqdm_on_load",
}
CHECKED = {  # a function of config_checks, or the platform, refuses what is not implemented
    "": "additional_config lora_config speculative_config watermark_config quant_config"
    " kv_transfer_config"
    " ec_transfer_config weight_transfer_config",
    "model_config": "runner quantization enable_prompt_embeds model_impl multimodal_config",
    "cache_config": "cache_dtype kv_offloading_size",
    "parallel_config": "tensor_parallel_size pipeline_parallel_size"
    " prefill_context_parallel_size distributed_executor_backend data_parallel_backend",
    "load_config": "load_format",
}
ROWS = (*UNUSED, *UNUSED_EARLY)
# Engine arguments that are no field of VllmConfig, or are one by another name.
RENAMED_ARGUMENTS = """
    aggregate_engine_logging disable_log_stats fail_on_environ_validation tokens_only
    attention_backend kv_cache_dtype device_ids ir_op_priority log_config_file scheduling_policy
    data_parallel_address data_parallel_start_rank data_parallel_multi_port_external_lb
    enable_lora lora_target_modules spec_method spec_model spec_tokens
    enable_mamba_cache_stochastic_rounding mamba_backend mamba_cache_philox_rounds
    mamba_ssu_algorithm gdn_prefill_backend kda_prefill_backend kda_decode_backend
    limit_mm_per_prompt mm_processor_device
"""


def joined(table: dict[str, str]) -> set[str]:
    return {f"{section}.{name}".lstrip(".") for section in table for name in table[section].split()}


def fields_of(owner: type[Any], prefix: str = "") -> Iterator[str]:
    """Paths of the fields a user can set; those with a section as default are descended into."""
    for field in dataclasses.fields(owner):
        default = ModelConfig if field.name == "model_config" else type(default_of(field))
        path = prefix + field.name
        if dataclasses.is_dataclass(default):
            yield from fields_of(default, f"{path}.")
        elif field.init:
            yield path


FIELDS = sorted(fields_of(VllmConfig))


def owners(path: str, tables: list[set[str]]) -> int:
    """How many tables have the field or a section around it."""
    parts = path.split(".")
    around = {".".join(parts[: i + 1]) for i in range(len(parts))}
    return sum(bool(around & table) for table in tables)


TABLES = [joined(VLLM), joined(HERE), joined(CHECKED), {row.path for row in ROWS}]


def test_every_field_has_one_owner() -> None:
    """Without one: add a row to unused_options.UNUSED if nothing reads it, or name its reader."""
    assert {path: owners(path, TABLES) for path in FIELDS if owners(path, TABLES) != 1} == {}


def test_tables_name_fields_that_exist() -> None:
    named = set().union(*TABLES, ANYWAY)
    stale = [p for p in named if not any(f == p or f.startswith(f"{p}.") for f in FIELDS)]
    assert stale == []


def test_engine_arguments_become_fields() -> None:
    last = {path.rpartition(".")[2] for path in FIELDS}
    sections = {path.partition(".")[0] for path in FIELDS}
    nested = {path.split(".")[-2] for path in FIELDS if "." in path}
    of_refused = {  # arguments of sections that a check refuses as a whole
        field.name
        for name in ("lora", "multimodal")
        for field in dataclasses.fields(section_type(name))
    }
    known = last | sections | nested | of_refused | set(RENAMED_ARGUMENTS.split())
    assert sorted({field.name for field in dataclasses.fields(EngineArgs)} - known) == []


def section_type(name: str) -> type[Any]:
    from vllm.config import LoRAConfig, MultiModalConfig

    return {"lora": LoRAConfig, "multimodal": MultiModalConfig}[name]


@pytest.fixture(scope="module")
def accepted(tiny_model: Path) -> VllmConfig:
    return EngineArgs(model=str(tiny_model)).create_engine_config()


def untouched() -> VllmConfig:
    """A configuration as the early check sees it: every section at its default."""
    config = object.__new__(VllmConfig)
    for field in dataclasses.fields(VllmConfig):
        object.__setattr__(config, field.name, default_of(field))
    return config


def set_to_something(config: VllmConfig, path: str) -> VllmConfig:
    """A copy in which the field has a value that is nobody's default."""
    changed = copy.copy(config)
    *sections, name = path.split(".")
    owner: Any = changed
    for section in sections:
        object.__setattr__(owner, section, copy.copy(getattr(owner, section)))
        owner = getattr(owner, section)
    object.__setattr__(owner, name, "something")
    return changed


def below(rows: tuple[Unused, ...]) -> list[str]:
    return [f for row in rows for f in FIELDS if f == row.path or f.startswith(f"{row.path}.")]


@pytest.mark.parametrize("path", below(UNUSED))
def test_unused_option_is_refused(accepted: VllmConfig, path: str) -> None:
    with pytest.raises(ValueError, match=rf"{path}='something' is not supported .*nothing here"):
        config_checks.check(set_to_something(accepted, path))


@pytest.mark.parametrize("path", below(UNUSED_EARLY))
def test_unused_early_option_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=rf"{path}='something' is not supported .*nothing here"):
        config_checks.check_early(set_to_something(untouched(), path))


def test_defaults_are_accepted(accepted: VllmConfig) -> None:
    config_checks.check(accepted)
    config_checks.check_early(untouched())


def test_a_resolved_configuration_is_accepted_again(accepted: VllmConfig) -> None:
    """vLLM's engine process resolves the configuration it was sent once more."""
    sent = pickle.loads(pickle.dumps(accepted))
    assert sent.compilation_config.custom_ops != []
    sent.__post_init__()


def test_values_of_what_happens_anyway_are_no_defaults() -> None:
    """Otherwise the entry is not needed; and a value that is refused is named by a row."""
    for path, values in ANYWAY.items():
        *sections, name = path.split(".")
        owner = reduce(getattr, sections, untouched())
        default = default_of(next(f for f in dataclasses.fields(owner) if f.name == name))
        assert default not in values
        assert owners(path, [{row.path for row in ROWS}]) == 1


@pytest.mark.parametrize("variable", UNUSED_VARIABLES, ids=lambda variable: variable.name)
def test_unused_variable_is_refused(
    accepted: VllmConfig, monkeypatch: pytest.MonkeyPatch, variable: Any
) -> None:
    for text in ("", *variable.accepted):
        monkeypatch.setenv(variable.name, text)
        config_checks.check(accepted)
    monkeypatch.setenv(variable.name, "2")
    with pytest.raises(ValueError, match=f"{variable.name}=2 is not supported .*nothing here"):
        config_checks.check(accepted)


def test_unused_variables_exist() -> None:
    from vllm.envs import environment_variables

    # Of earlier releases of vLLM; this one would only warn.
    earlier = {"VLLM_ATTENTION_BACKEND", "VLLM_TORCH_PROFILER_DIR"}
    names = {variable.name for variable in UNUSED_VARIABLES}
    assert names - environment_variables.keys() == earlier
