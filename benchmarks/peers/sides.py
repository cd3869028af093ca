# SPDX-License-Identifier: Apache-2.0
"""The two sides of the comparison and what is the same for both: options, threads, environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30
OPTIONS: dict[str, int | str | bool] = {
    "dtype": "bfloat16",
    "max_model_len": 1024,
    "max_num_batched_tokens": 1024,
    "max_num_seqs": 32,
    "kv_cache_memory_bytes": 2 * GIB,
    "enable_prefix_caching": False,
}
# Settings of the caller that could reach one side only.
_DROPPED = ("VLLM_", "MS_", "OMP_", "KMP_", "TORCH", "TRITON_", "PYTHON", "LD_PRELOAD")
_COMMON = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}


@dataclass(frozen=True)
class Side:
    """One engine under comparison.

    Attributes:
        name: as the tables call it; letters, digits, spaces and dashes.
        python: interpreter of its environment.
        program: module with its command line.
        settings: its own environment variables.
    """

    name: str
    python: Path
    program: str
    settings: Mapping[str, str]

    def environment(self, cache: Path) -> dict[str, str]:
        """Environment of its processes; what it compiles is kept below `cache`."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_DROPPED)}
        caches = {
            "VLLM_CACHE_ROOT": str(cache / "vllm"),
            "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
            "XDG_CACHE_HOME": str(cache / "other"),
        }
        return kept | _COMMON | caches | dict(self.settings)


def both_sides(peer_python: Path, threads: int, preload: str = "") -> tuple[Side, Side]:
    """This plugin in the running environment, and vLLM's CPU build with LD_PRELOAD=`preload`.

    Binds this process, and so all it starts, to the first `threads` of its cores.

    Raises:
        SystemExit: there are fewer cores.
    """
    cores = sorted(os.sched_getaffinity(0))
    if threads > len(cores):
        raise SystemExit(f"--threads {threads}: this process may use {len(cores)} cores.")
    os.sched_setaffinity(0, cores[:threads])
    ours = {"VLLM_MS_NUM_THREADS": str(threads)}
    peer = {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores[:threads]))}
    if preload:
        peer["LD_PRELOAD"] = preload
    return (
        Side("vllm-mindspore", Path(sys.executable), "vllm_mindspore.cli.main", ours),
        Side("vLLM CPU", peer_python, "vllm.entrypoints.cli.main", peer),
    )


def command_line_options() -> list[str]:
    """OPTIONS as `serve` takes them."""
    words: list[str] = []
    for name, value in OPTIONS.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", str(value)]
    return words
