# SPDX-License-Identifier: Apache-2.0
"""MindSporePlatform: what vLLM asks of a platform. What is refused is in `config_checks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psutil
import torch
from vllm.logger import init_logger
from vllm.platforms.interface import Platform, PlatformEnum

from vllm_mindspore import config_checks, envs, machine_share, patches, process_end, process_start
from vllm_mindspore.unused_options import WORKER

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.inputs import EngineInput
    from vllm.pooling_params import PoolingParams
    from vllm.sampling_params import SamplingParams
    from vllm.utils.argparse_utils import FlexibleArgumentParser

logger = init_logger(f"vllm.{__name__}")  # vLLM shows loggers below its own


def _is_checked(vllm_config: VllmConfig) -> bool:
    """Whether the front end has checked it: engine processes resolve it once more, with values
    that vLLM put there since."""
    return bool(getattr(vllm_config, "vllm_mindspore_checked", False))


class MindSporePlatform(Platform):
    """Out-of-tree platform: control tensors are torch CPU tensors, models are MindSpore graphs."""

    _enum = PlatformEnum.OOT
    # Both become torch.device(...) in vLLM, and torch knows no MindSpore device.
    device_name = "cpu"
    device_type = "cpu"
    dispatch_key = "CPU"
    dist_backend = "gloo"
    # Inductor would need a C++ compiler at run time for a handful of small sampler functions.
    simple_compile_backend = "eager"
    device_control_env_var = "ASCEND_RT_VISIBLE_DEVICES"
    ray_device_key = "NPU"  # on CPU too: `ray_executor` says why

    @classmethod
    def get_compile_backend(cls) -> str:
        """vLLM's default: nothing is compiled, but `eager` is reported as the user's choice."""
        return "inductor"

    @property
    def supported_dtypes(self) -> list[torch.dtype]:
        """Compute dtypes. The first is what `dtype=auto` makes of an fp32 checkpoint: fp32."""
        return [torch.float32, torch.bfloat16, torch.float16]

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        """Name for logs."""
        return "MindSpore CPU"

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:
        """Bytes of main memory of the machine."""
        return int(psutil.virtual_memory().total)

    @classmethod
    def get_current_memory_usage(cls, device: torch.types.Device | None = None) -> float:
        """Resident bytes of this process."""
        return float(psutil.Process().memory_info().rss)

    @classmethod
    def is_pin_memory_available(cls) -> bool:
        """Pinning needs an accelerator known to torch."""
        return False

    def is_sleep_mode_available(self) -> bool:
        """The worker gives the memory of its cache back by itself."""
        return True

    def is_cumem_allocator_available(self) -> bool:
        """vLLM's allocator is CUDA code."""
        return False

    @classmethod
    def set_device(cls, device: torch.device) -> None:
        """Nothing to select: torch stays on the host."""

    @classmethod
    def manual_seed_all(cls, seed: int) -> None:
        """Nothing beyond the host generators that vLLM seeds itself."""

    @classmethod
    def import_kernels(cls) -> None:
        """vLLM's compiled kernels are not used."""

    @classmethod
    def import_ir_kernels(cls) -> None:
        """vLLM's compiled kernels are not used."""

    @classmethod
    def support_hybrid_kv_cache(cls) -> bool:
        """The worker holds one cache group: vLLM makes all layers alike, or refuses the model."""
        return False

    @classmethod
    def support_static_graph_mode(cls) -> bool:
        """No CUDA graphs: MindSpore compiles its own graph."""
        return False

    @classmethod
    def update_block_size_for_backend(cls, vllm_config: VllmConfig) -> None:
        """The block size is settled in check_and_update_config; no torch backend has a say."""

    @classmethod
    def verify_quantization(cls, quant: str) -> None:
        """Raise ValueError for a quantization method that is not supported."""
        config_checks.check_quantization_name(quant)

    @classmethod
    def pre_register_and_update(cls, parser: FlexibleArgumentParser | None = None) -> None:
        """Before any work: check our variables and how processes may start.

        vLLM calls it in the front-end process only: for its parser, and (without one) for each
        engine configuration.

        Raises:
            ValueError: an environment variable of ours is wrong.
            RuntimeError: the engine process cannot be started safely from this script.
        """
        envs.check()
        if parser is None:
            process_end.leave_on_signals_while_starting()
            patches.apply_to_front_end()
            process_start.choose_start_method()

    @classmethod
    def validate_environ(cls, hard_fail: bool) -> None:
        """Report VLLM_* variables that neither vLLM nor we know.

        Raises:
            ValueError: there is one and `hard_fail` is set.
        """
        from vllm.envs import environment_variables

        for name in envs.unknown_vllm_variables(environment_variables):
            if hard_fail:
                raise ValueError(f"Unknown vLLM environment variable: {name}. Check its spelling.")
            logger.warning("Unknown vLLM environment variable: %s", name)

    @classmethod
    def apply_config_platform_defaults(cls, vllm_config: VllmConfig) -> None:
        """Switch torch.compile and CUDA graphs off before vLLM derives anything from them.

        Raises:
            ValueError: the user asked for one of them.
        """
        from vllm.config import CompilationMode, CUDAGraphMode

        if not _is_checked(vllm_config):
            config_checks.check_early(vllm_config)
        vllm_config.compilation_config.mode = CompilationMode.NONE
        vllm_config.compilation_config.cudagraph_mode = CUDAGraphMode.NONE

    @classmethod
    def check_and_update_config(cls, vllm_config: VllmConfig) -> None:
        """Refuse what is not supported and name the worker. Idempotent; runs in workers too.

        Raises:
            ValueError: a requested feature is not supported; says what to do instead.
        """
        if vllm_config.model_config is None:
            return  # vLLM builds partial configurations, for example for its tokenizer commands
        process_end.follow_parent()
        if _is_checked(vllm_config):
            return
        config_checks.check(vllm_config)
        ranks = vllm_config.parallel_config.world_size
        process_start.choose_start_method(several_ranks=ranks > 1)
        machine_share.note_engines(vllm_config)
        vllm_config.parallel_config.worker_cls = WORKER
        if vllm_config.parallel_config.use_ray:
            vllm_config.parallel_config.distributed_executor_backend = config_checks.RAY_EXECUTOR
        vllm_config.parallel_config.disable_custom_all_reduce = True
        vllm_config.vllm_mindspore_checked = True

    @classmethod
    def validate_request(
        cls, processed_inputs: EngineInput, params: SamplingParams | PoolingParams
    ) -> None:
        """Raise ValueError for a request that needs something this release does not have."""
        config_checks.check_request(processed_inputs, params)

    @classmethod
    def get_attn_backend_cls(cls, *_args: Any, **_kwargs: Any) -> str:
        """Models are MindSpore graphs with their own attention; vLLM's layers are not built."""
        raise NotImplementedError("MindSpore models do not use the attention backends of vLLM.")
