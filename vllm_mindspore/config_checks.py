# SPDX-License-Identifier: Apache-2.0
"""What this release refuses, at start-up and per request: one small function per feature.

Every message names what was asked, why it is refused and what to do instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from vllm.logger import init_logger
from vllm.ray.lazy_utils import is_in_ray_actor, is_ray_initialized

from vllm_mindspore import checkpoint_checks, envs, request_checks
from vllm_mindspore.checkpoint_checks import refuse as _refuse
from vllm_mindspore.device import soc
from vllm_mindspore.machine_share import KEY
from vllm_mindspore.model_executor.model_loader import preflight
from vllm_mindspore.model_executor.model_loader.quantization_files import METHODS
from vllm_mindspore.model_executor.models.config import decoder_config
from vllm_mindspore.quantization.sharding import Rank
from vllm_mindspore.unused_options import (
    UNUSED,
    UNUSED_EARLY,
    UNUSED_VARIABLES,
    Unused,
    default_of,
)

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.inputs import EngineInput
    from vllm.pooling_params import PoolingParams
    from vllm.sampling_params import SamplingParams

logger = init_logger(f"vllm.{__name__}")  # vLLM shows loggers below its own

BLOCK_SIZES = (16, 32, 64, 128)
MODEL_IMPLEMENTATIONS = ("auto", "vllm")
RAY_EXECUTOR = "vllm_mindspore.ray_executor.RayExecutor"  # what `ray` becomes
EXECUTORS = (None, "uni", "mp", "ray", RAY_EXECUTOR)
# What the worker reads of LoRAConfig; other fields are refused unless at their default.
_LORA_OPTIONS = ("max_lora_rank", "max_loras", "max_cpu_loras", "lora_dtype")

Check = Callable[["VllmConfig"], None]


def check(vllm_config: VllmConfig) -> None:
    """Run every check.

    Raises:
        ValueError: the configuration asks for something this release does not have.
    """
    for run_check in CHECKS:
        run_check(vllm_config)


def check_early(vllm_config: VllmConfig) -> None:
    """Refuse options of compilation, attention and kernels, before vLLM puts its own there.

    Raises:
        ValueError: the user asked for one.
    """
    _refuse_used(UNUSED_EARLY, vllm_config)


def check_divides(vllm_config: VllmConfig) -> None:
    """Refuse ranks that do not divide the model, before vLLM says less about it.

    Raises:
        ValueError: names the field of config.json, its size and how many ranks are possible.
    """
    size = vllm_config.parallel_config.tensor_parallel_size
    if size > 1:
        decoder_config(vllm_config.model_config.hf_config).of_rank(Rank(0, size))


def check_request(processed_inputs: EngineInput, params: SamplingParams | PoolingParams) -> None:
    """Refuse a single request.

    Raises:
        ValueError: its prompt is not plain tokens, or a parameter cannot be sent to the engine.
    """
    request_checks.check_values(params)
    kind = processed_inputs["type"]
    if kind != "token":
        _refuse(f"A prompt of type {kind!r}", "prompts are token ids", "Send text or token ids.")


def check_quantization_name(method: str) -> None:
    """Raise ValueError for a quantization method that is none of ours."""
    if method not in METHODS:
        _refuse(
            f"quantization={method!r}",
            "the formats it names are not read",
            f"Use one of {', '.join(METHODS)}, or the original bf16, fp16 or fp32 checkpoint.",
        )


def _refuse_used(options: tuple[Unused, ...], vllm_config: VllmConfig) -> None:
    for option in options:
        for path, value in option.used(vllm_config):
            _refuse(f"{path}={value!r}", "nothing here reads it", option.advice)


def _unused_options(vllm_config: VllmConfig) -> None:
    _refuse_used(UNUSED, vllm_config)


def _unused_variables(_: VllmConfig) -> None:
    for variable in UNUSED_VARIABLES:
        text = envs.text(variable.name)
        if text and text not in variable.accepted:
            _refuse(f"{variable.name}={text}", "nothing here reads it", variable.advice)


def _one_worker(vllm_config: VllmConfig) -> None:
    for name in (
        "pipeline_parallel_size",
        "prefill_context_parallel_size",
    ):
        size = getattr(vllm_config.parallel_config, name)
        if size > 1:
            _refuse(f"{name}={size}", "layers and contexts are not divided", "Leave it at 1.")


def _tensor_parallel(vllm_config: VllmConfig) -> None:
    parallel, model = vllm_config.parallel_config, vllm_config.model_config
    size = parallel.tensor_parallel_size
    if size == 1:
        return
    check_divides(vllm_config)
    if parallel.use_ray:
        _refuse(
            f"tensor_parallel_size={size} with Ray",
            "ranks have only been run as processes of one machine",
            "Drop --distributed-executor-backend.",
        )
    if parallel.distributed_executor_backend == "uni":
        _refuse(
            f"distributed_executor_backend='uni' with tensor_parallel_size={size}",
            "each rank is a process",
            "Use 'mp', or drop the option.",
        )
    if vllm_config.lora_config is not None:
        _refuse(
            f"LoRA with tensor_parallel_size={size}",
            "adapters are not divided among ranks",
            "Drop --enable-lora, or --tensor-parallel-size.",
        )
    if getattr(model.hf_config, "classifier_from_token", None):
        _refuse(
            f"classifier_from_token with tensor_parallel_size={size}",
            "no rank has the whole head",
            "Drop --tensor-parallel-size.",
        )
    checkpoint_checks.check_groups(vllm_config)


def _npus(vllm_config: VllmConfig) -> None:
    if not envs.uses_npus():
        return
    if not soc.has_ascend_driver():
        _refuse(
            "VLLM_MS_DEVICE=ascend",
            "this machine has no Ascend driver (/dev/davinci_manager)",
            "Unset it to compute on the CPU.",
        )
    parallel = vllm_config.parallel_config
    for asked, used in (
        (f"data_parallel_size={parallel.data_parallel_size}", parallel.data_parallel_size > 1),
        ("Ray", parallel.use_ray),
        ("float32", str(vllm_config.model_config.dtype) == "torch.float32"),
        ("VLLM_MS_FUSED_KERNELS=1", envs.FUSED_KERNELS.is_set() and envs.FUSED_KERNELS.get()),
        ("LoRA", vllm_config.lora_config is not None),
        ("Sleep mode", vllm_config.model_config.enable_sleep_mode),
    ):
        if used:
            _refuse(f"{asked} with VLLM_MS_DEVICE=ascend", "only a CPU has it yet", "Drop one.")
    logger.warning(
        "VLLM_MS_DEVICE=ascend: no release has run on an NPU yet. docs/install.md says what is "
        "known; unset the variable to compute on the CPU."
    )


def _additional_config(vllm_config: VllmConfig) -> None:
    options = vllm_config.additional_config
    unknown = set(options) - {KEY} if isinstance(options, dict) else {type(options).__name__}
    if unknown:
        _refuse(
            f"additional_config with {', '.join(sorted(unknown))}",
            "nothing here reads it",
            "Drop --additional-config and the --gdn, --kda backends.",
        )


def _executor(vllm_config: VllmConfig) -> None:
    backend = vllm_config.parallel_config.distributed_executor_backend
    if backend not in EXECUTORS:
        _refuse(
            f"distributed_executor_backend={backend!r}",
            "the workers of an engine are processes of this machine",
            "Drop the option, or use 'uni', 'mp' or 'ray'.",
        )
    if vllm_config.parallel_config.data_parallel_backend != "mp":
        _refuse(
            f"data_parallel_backend={vllm_config.parallel_config.data_parallel_backend!r}",
            "the engines of a server are processes of its machine",
            "Drop --data-parallel-backend.",
        )


def _ray(vllm_config: VllmConfig) -> None:
    parallel = vllm_config.parallel_config
    if not parallel.use_ray:
        return
    if parallel.data_parallel_size > 1:
        _refuse(
            f"data_parallel_size={parallel.data_parallel_size} with Ray",
            "each engine would start a cluster of its own",
            "Drop --distributed-executor-backend.",
        )
    if (
        is_ray_initialized()
        and envs.engine_in_own_process()
        and not is_in_ray_actor()  # there vLLM spawns the engine and names the cluster
    ):
        _refuse(
            "An engine process that is to use Ray, after ray.init() in this one,",
            "another process cannot use the connection of this one",
            "Set VLLM_ENABLE_V1_MULTIPROCESSING=0, or leave ray.init() out: the engine joins the "
            "cluster of RAY_ADDRESS or of `ray start`.",
        )


def _lora(vllm_config: VllmConfig) -> None:
    config = vllm_config.lora_config
    if config is None:
        return
    if config.lora_dtype != vllm_config.model_config.dtype:
        _refuse(
            f"lora_dtype={config.lora_dtype}",
            f"adapters have the dtype of the model ({vllm_config.model_config.dtype})",
            "Drop --lora-dtype.",
        )
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in _LORA_OPTIONS and value != default_of(field):
            option = f"--{field.name.replace('_', '-')}"
            _refuse(
                f"lora_config.{field.name}={value!r}", "nothing here reads it", f"Drop {option}."
            )


def _speculative_decoding(vllm_config: VllmConfig) -> None:
    config = vllm_config.speculative_config
    if config is None:
        return
    if config.method != "ngram":
        _refuse(
            f"Speculative decoding with method={config.method!r}",
            "drafts are looked up in the request's own tokens",
            "Use method 'ngram' in --speculative-config.",
        )
    if config.rejection_sample_method != "standard":
        _refuse(
            f"rejection_sample_method={config.rejection_sample_method!r}",
            "drafts are accepted when the model samples them",
            "Drop it from --speculative-config.",
        )


def _transfer(vllm_config: VllmConfig) -> None:
    if vllm_config.kv_transfer_config is not None:
        _refuse(
            "A KV connector",
            "the key-value cache stays in its worker",
            "Drop --kv-transfer-config and --kv-offloading-size.",
        )
    if vllm_config.ec_transfer_config is not None:
        _refuse(
            "An encoder-cache connector", "models have no encoder", "Drop --ec-transfer-config."
        )
    if vllm_config.weight_transfer_config is not None:
        _refuse("Weight transfer", "weights are read once", "Drop --weight-transfer-config.")


def _kv_offloading(vllm_config: VllmConfig) -> None:
    if vllm_config.cache_config.kv_offloading_size is not None:
        _refuse(
            "KV cache offloading",
            "the cache already lives in main memory",
            "Drop --kv-offloading-size; raise --kv-cache-memory-bytes instead.",
        )


def _block_size(vllm_config: VllmConfig) -> None:
    size = vllm_config.cache_config.block_size
    if size not in BLOCK_SIZES:
        _refuse(
            f"block_size={size}",
            "the attention kernels know other sizes",
            f"Use one of {', '.join(map(str, BLOCK_SIZES))}.",
        )


def _sliding_window(vllm_config: VllmConfig) -> None:
    window = vllm_config.model_config.get_sliding_window()
    if window is not None:
        _refuse(
            f"Sliding-window attention (window {window} in config.json)",
            "attention sees the whole context",
            "Pass --disable-sliding-window, which limits the context to the window.",
        )


def _model_config(vllm_config: VllmConfig) -> None:
    decoder_config(vllm_config.model_config.hf_config)


def _model_files(vllm_config: VllmConfig) -> None:
    preflight.check(vllm_config.model_config, vllm_config.load_config)


def _prompt_embeds(vllm_config: VllmConfig) -> None:
    if vllm_config.model_config.enable_prompt_embeds:
        _refuse("Prompt embedding", "prompts are token ids", "Drop --enable-prompt-embeds.")


def _model_implementation(vllm_config: VllmConfig) -> None:
    asked = vllm_config.model_config.model_impl
    if asked not in MODEL_IMPLEMENTATIONS:
        _refuse(
            f"model_impl={asked!r}",
            "models are the MindSpore graphs of this package",
            "Use --model-impl auto.",
        )


def _model_runner_protocol(vllm_config: VllmConfig) -> None:
    if vllm_config.use_v2_model_runner:
        _refuse(
            "The second model runner protocol of vLLM",
            "the worker speaks the first",
            "Set VLLM_USE_V2_MODEL_RUNNER=0 and drop --watermark-config.",
        )


def _eager(vllm_config: VllmConfig) -> None:
    if vllm_config.model_config.enforce_eager:
        logger.info("enforce_eager has no effect: MindSpore runs one compiled graph.")


CHECKS: tuple[Check, ...] = (
    _one_worker,
    _tensor_parallel,
    _npus,
    _additional_config,
    _executor,
    _ray,
    _lora,
    _speculative_decoding,
    _kv_offloading,
    _transfer,
    checkpoint_checks.quantization,
    checkpoint_checks.load_format,
    checkpoint_checks.kv_cache_dtype,
    _block_size,
    _sliding_window,
    _model_config,
    _prompt_embeds,
    _model_implementation,
    _model_runner_protocol,
    _unused_options,
    _unused_variables,
    _model_files,  # last: it reads files
    _eager,
)
