# SPDX-License-Identifier: Apache-2.0
"""Control groups limit what counts as available. The files are laid out as the kernel does."""

from __future__ import annotations

import ctypes
from pathlib import Path

import psutil
import pytest

from vllm_mindspore.device import memory
from vllm_mindspore.device.memory import give_back_free_memory

MIB = 1 << 20


def _group(folder: Path, limit: str, usage: int, inactive: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")


@pytest.fixture
def nested(tmp_path: Path) -> tuple[Path, Path]:
    """A control group two levels deep, and the process's membership file."""
    _group(tmp_path / "a", "max", 0)
    _group(tmp_path / "a" / "b", "max", 0)
    membership = tmp_path / "cgroup"
    membership.write_text("0::/a/b\n")
    return tmp_path, membership


def _headroom(root: Path, membership: Path) -> list[int]:
    groups = memory._cgroup_chain(root, membership)
    return [left for left in map(memory._cgroup_headroom, groups) if left is not None]


def test_unlimited_groups_leave_the_machine(nested: tuple[Path, Path]) -> None:
    assert _headroom(*nested) == []


def test_the_tightest_ancestor_counts(nested: tuple[Path, Path]) -> None:
    root, membership = nested
    _group(root / "a" / "b", str(900 * MIB), 100 * MIB)
    _group(root / "a", str(500 * MIB), 200 * MIB, inactive=50 * MIB)
    assert sorted(_headroom(root, membership)) == [350 * MIB, 800 * MIB]


def test_version_one_limits_are_read(tmp_path: Path) -> None:
    group = tmp_path / "memory" / "job"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text(str(300 * MIB))
    (group / "memory.usage_in_bytes").write_text(str(100 * MIB))
    (group / "memory.stat").write_text(f"total_inactive_file {10 * MIB}\n")
    membership = tmp_path / "cgroup"
    membership.write_text("5:cpu,cpuacct:/job\n4:memory:/job\n")
    assert _headroom(tmp_path, membership) == [210 * MIB]


def test_free_pages_between_used_ones_are_given_back() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = (ctypes.c_void_p,)
    size, count = 100_000, 1000  # less than what malloc maps one by one
    blocks = [libc.malloc(size) for _ in range(count)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks[:-1]:  # the last one keeps the end of the heap
        libc.free(ctypes.c_void_p(block))
    before = psutil.Process().memory_info().rss
    give_back_free_memory()
    assert before - psutil.Process().memory_info().rss > size * count / 2
    libc.free(ctypes.c_void_p(blocks[-1]))


def test_this_process_has_some_memory() -> None:
    assert 0 < memory.available_memory() <= psutil.virtual_memory().total
