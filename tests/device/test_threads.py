# SPDX-License-Identifier: Apache-2.0
"""Threads per rank follow affinity, quota, ranks and the user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vllm_mindspore.device.threads import threads_per_rank, usable_cores


def test_affinity_without_a_quota(tmp_path: Path) -> None:
    cpu_max = tmp_path / "cpu.max"
    assert usable_cores(cpu_max) == len(os.sched_getaffinity(0))
    cpu_max.write_text("max 100000\n")
    assert usable_cores(cpu_max) == len(os.sched_getaffinity(0))


def test_quota_limits_cores(tmp_path: Path) -> None:
    cpu_max = tmp_path / "cpu.max"
    cpu_max.write_text("100000 100000\n")
    assert usable_cores(cpu_max) == 1
    cpu_max.write_text("50000 100000\n")
    assert usable_cores(cpu_max) == 1


def test_ranks_share_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_MS_NUM_THREADS", raising=False)
    assert threads_per_rank(1) == usable_cores()
    assert threads_per_rank(10_000) == 1
    monkeypatch.setenv("VLLM_MS_NUM_THREADS", "3")
    assert threads_per_rank(10_000) == 3
