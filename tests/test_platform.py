# SPDX-License-Identifier: Apache-2.0
"""What vLLM derives from the platform: worker, compilation, dtypes, devices, environment."""

from __future__ import annotations

import pickle
from pathlib import Path

import psutil
import pytest
import torch
from vllm.config import CompilationMode, CUDAGraphMode, VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.platforms import current_platform

from vllm_mindspore.platform import WORKER, MindSporePlatform


@pytest.fixture
def config(tiny_model: Path) -> VllmConfig:
    return EngineArgs(model=str(tiny_model)).create_engine_config()


def test_is_the_current_platform() -> None:
    assert type(current_platform) is MindSporePlatform
    assert current_platform.is_out_of_tree()


def test_worker_and_compilation(config: VllmConfig) -> None:
    assert config.parallel_config.worker_cls == WORKER
    assert config.compilation_config.mode == CompilationMode.NONE
    assert config.compilation_config.cudagraph_mode == CUDAGraphMode.NONE


def test_checking_again_changes_nothing(config: VllmConfig) -> None:
    before = pickle.dumps(config)
    MindSporePlatform.check_and_update_config(config)
    assert pickle.dumps(config) == before


def test_vllm_keeps_its_scheduler_defaults(config: VllmConfig) -> None:
    assert config.scheduler_config.enable_chunked_prefill
    assert config.cache_config.enable_prefix_caching


@pytest.mark.parametrize(("asked", "found"), [(None, False), (False, False), (True, True)])
def test_asynchronous_scheduling_is_for_those_who_ask(
    tiny_model: Path, asked: bool | None, found: bool
) -> None:
    config = EngineArgs(model=str(tiny_model), async_scheduling=asked).create_engine_config()
    assert config.scheduler_config.async_scheduling is found


def test_configuration_without_a_model_is_let_through() -> None:
    assert VllmConfig().model_config is None


def test_devices_are_torch_devices() -> None:
    assert torch.device(MindSporePlatform.device_type).type == "cpu"
    assert torch.device(f"{MindSporePlatform.device_name}:1").index == 1


def test_memory_is_that_of_the_machine() -> None:
    assert MindSporePlatform.get_device_total_memory() == psutil.virtual_memory().total
    assert 0 < MindSporePlatform.get_current_memory_usage() < psutil.virtual_memory().total


def test_pinned_memory_is_off() -> None:
    assert torch.zeros(1, pin_memory=MindSporePlatform.is_pin_memory_available()).sum() == 0


def test_seeding_and_device_selection_are_accepted() -> None:
    MindSporePlatform.manual_seed_all(0)
    MindSporePlatform.set_device(torch.device("cpu"))


def test_our_variables_are_not_reported_as_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MS_NUM_THREADS", "1")
    MindSporePlatform.validate_environ(hard_fail=True)


def test_unknown_variable_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MS_NUM_THREDS", "1")
    with pytest.raises(ValueError, match="VLLM_MS_NUM_THREDS"):
        MindSporePlatform.validate_environ(hard_fail=True)


def test_wrong_variable_is_an_error_at_start_up(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    monkeypatch.setenv("VLLM_MS_MODEL_BACKEND", "MindFormers")
    with pytest.raises(ValueError, match="not part of this release"):
        EngineArgs(model=str(tiny_model)).create_engine_config()


def test_vllm_attention_backends_are_not_offered() -> None:
    with pytest.raises(NotImplementedError, match="attention backends"):
        MindSporePlatform.get_attn_backend_cls()
