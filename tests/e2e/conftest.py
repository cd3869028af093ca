# SPDX-License-Identifier: Apache-2.0
"""Engines and references, made once per checkpoint and dtype and shared by the session."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from vllm import LLM
from vllm import envs as vllm_envs

from tests.e2e.checkpoints import SPECS, write_checkpoint
from tests.e2e.reference import Reference

Checkpoint = Callable[[str, torch.dtype], Path]
Engine = Callable[..., LLM]
GetReference = Callable[..., Reference]

_ENGINE_DEFAULTS: dict[str, Any] = {
    "skip_tokenizer_init": True,
    "max_model_len": 512,
    "max_num_seqs": 16,
    "max_num_batched_tokens": 512,
    "seed": 0,
}


@pytest.fixture(scope="session", autouse=True)
def _engine_in_this_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        yield


@pytest.fixture
def batch_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    """VLLM_BATCH_INVARIANT, which vLLM may have read before."""
    monkeypatch.setitem(vars(vllm_envs), "VLLM_BATCH_INVARIANT", True)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Folder of a random checkpoint, written on first use."""
    folders: dict[tuple[str, torch.dtype], Path] = {}

    def get(name: str, dtype: torch.dtype) -> Path:
        key = (name, dtype)
        if key not in folders:
            folder = tmp_path_factory.mktemp(f"{name}-{dtype}".replace("torch.", ""))
            folders[key] = write_checkpoint(SPECS[name], folder, dtype)
        return folders[key]

    return get


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """An LLM over a folder, kept for the session; equal arguments and variables of this package
    give the same one."""
    engines: dict[str, LLM] = {}

    def get(folder: Path, **options: Any) -> LLM:
        variables = [item for item in os.environ.items() if item[0].startswith("VLLM_MS_")]
        key = f"{folder} {sorted(options.items())} {sorted(variables)}"
        if key not in engines:
            engines[key] = LLM(str(folder), **(_ENGINE_DEFAULTS | options))
        return engines[key]

    yield get
    with pytest.MonkeyPatch.context() as patch:
        # Every engine that ends collects garbage: seconds among the objects of all others.
        patch.setattr(gc, "collect", lambda *args: 0)
        engines.clear()


@pytest.fixture(scope="session")
def reference() -> GetReference:
    """The transformers model of a folder, computed in fp32 or another dtype."""
    references: dict[tuple[Path, torch.dtype], Reference] = {}

    def get(folder: Path, dtype: torch.dtype = torch.float32) -> Reference:
        key = (folder, dtype)
        if key not in references:
            references[key] = Reference(folder, dtype)
        return references[key]

    return get
