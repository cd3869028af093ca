# SPDX-License-Identifier: Apache-2.0
"""How much memory this process may use, and how much it uses. All sizes in bytes."""

from __future__ import annotations

import ctypes
from pathlib import Path

import psutil

_CGROUP_ROOT = Path("/sys/fs/cgroup")


def available_memory(cgroup_root: Path = _CGROUP_ROOT, process: str = "self") -> int:
    """Bytes this process can still allocate: what the machine has available, or what the
    tightest control group above the process leaves, whichever is less."""
    free = int(psutil.virtual_memory().available)
    for group in _cgroup_chain(cgroup_root, Path("/proc") / process / "cgroup"):
        left = _cgroup_headroom(group)
        if left is not None:
            free = min(free, left)
    return free


def give_back_free_memory() -> None:
    """Gives the system the pages that this process's allocator keeps but nothing uses, as loading
    leaves them. Without glibc there is no such call, and nothing happens."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _cgroup_chain(root: Path, membership: Path) -> list[Path]:
    """The control group folders from the process's own up to the root (v2, then v1 memory)."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    chain: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base = root / controllers if controllers else root
        leaf = base / path.lstrip("/")
        chain += [folder for folder in (leaf, *leaf.parents) if folder.is_relative_to(base)]
    return chain


def _cgroup_headroom(group: Path) -> int | None:
    """Limit minus use, where reclaimable file cache does not count as use; None if unlimited."""
    for limit_name, usage_name in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        limit, usage = _read_bytes(group / limit_name), _read_bytes(group / usage_name)
        if limit is not None and usage is not None:
            return max(0, limit - usage + _inactive_file(group))
    return None


def _read_bytes(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _inactive_file(group: Path) -> int:
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        key, _, value = line.partition(" ")
        if key in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0
