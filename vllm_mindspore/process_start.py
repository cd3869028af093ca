# SPDX-License-Identifier: Apache-2.0
"""How engine processes may be started from this one: fork while MindSpore is idle, else spawn.

A process forked after MindSpore has run an op hangs in its first op: the runtime's threads do not
survive the fork. Importing MindSpore, setting contexts and creating tensors start no thread. A fork
also inherits settings that MindSpore takes only once, and then refuses to take from a worker.
"""

from __future__ import annotations

import ast
import sys
from multiprocessing import process
from pathlib import Path

from vllm.logger import init_logger

from vllm_mindspore import envs

logger = init_logger(f"vllm.{__name__}")  # vLLM shows loggers below its own

# Names MindSpore 2.10 gives its runtime threads; the first op of either mode starts some of them.
_RUNTIME_THREADS = ("ActorThread_", "KernelThread_", "frontend_queue", "backend_queue")
# The module by which a worker sets MindSpore up; loaded in workers only.
_WORKER_RUNTIME = "vllm_mindspore.device.runtime"
_ADVICE = (
    "Either create the LLM before the first MindSpore op and do not set MindSpore's threads, or "
    "put the whole program, its use of MindSpore included, under `if __name__ == '__main__':`."
)


def mindspore_has_run() -> bool:
    """Whether a worker can no longer be set up here or in a fork of this process (Linux).

    So it is when MindSpore's runtime threads exist, or its device or dispatch threads are fixed.
    """
    if "mindspore" not in sys.modules:
        return False
    return _settings_are_fixed() or any(
        name.startswith(_RUNTIME_THREADS) for name in _thread_names()
    )


def _settings_are_fixed() -> bool:
    """Whether MindSpore would refuse what a worker sets: the device and its dispatch threads."""
    mindspore = sys.modules["mindspore._c_expression"]
    if mindspore.RuntimeConf.get_instance().is_dispatch_threads_num_configured():
        return True
    if mindspore.DeviceManagerConf.get_instance().is_device_enable():
        return False  # chosen already; choosing it again is accepted
    device = mindspore.DeviceContextManager.get_instance().get_device_context("CPU")
    return device is not None and bool(device.initialized())


def require_idle_mindspore() -> None:
    """For the process that is to become a worker, before it sets up MindSpore.

    Raises:
        RuntimeError: device, threads or kernels can no longer be chosen.
    """
    if mindspore_has_run():
        raise RuntimeError(
            "MindSpore has already run an op, or its threads have been set, in this process, so it "
            f"cannot be set up for a worker: device, threads and kernels are fixed. {_ADVICE}"
        )


def choose_start_method(*, several_ranks: bool = False) -> None:
    """Switch vLLM to spawn when a fork would hang. Several ranks are processes of their own,
    wherever their engine is.

    Raises:
        RuntimeError: the worker would have to run where MindSpore is already in use, or spawn is
            needed and the main script would create the LLM again when a child imports it.
    """
    _refuse_unguarded_child()
    if not envs.engine_in_own_process() and not several_ranks:
        if _WORKER_RUNTIME not in sys.modules:  # else the ops were those of our own worker
            require_idle_mindspore()
    elif mindspore_has_run():
        _use_spawn()


def _use_spawn() -> None:
    script = _main_script()
    if script is not None and not _has_main_guard(script):
        raise RuntimeError(
            "MindSpore has already run an op, or its threads have been set, in this process, so a "
            "forked engine would hang or fail; the alternative, "
            f"spawn, imports {script} again, which has no main guard. {_ADVICE}"
        )
    if envs.worker_start_method() != "spawn":
        logger.warning(
            "MindSpore has already run an op, or its threads have been set, in this process: a "
            "forked engine would hang or fail. "
            "Starting the engine with spawn (VLLM_WORKER_MULTIPROC_METHOD=spawn)."
        )
        envs.force_spawn()


def _refuse_unguarded_child() -> None:
    """Name the cause when a spawned child that imports the main script gets here again."""
    if getattr(process.current_process(), "_inheriting", False):
        raise RuntimeError(
            "This process is a spawned child that imports the main script, and the script creates "
            "an LLM while it is imported. Put the whole program under "
            "`if __name__ == '__main__':`, or unset VLLM_WORKER_MULTIPROC_METHOD."
        )


def _thread_names() -> list[str]:
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text())
        except OSError:
            continue  # the thread ended meanwhile
    return names


def _main_script() -> Path | None:
    """The file that a spawned child imports again as __mp_main__, if there is one."""
    main = sys.modules["__main__"]
    if getattr(main, "__spec__", None) is not None:
        return None  # python -m: imported by name, packages' __main__ are not imported at all
    path = getattr(main, "__file__", None)
    return Path(path) if path and Path(path).is_file() else None


def _has_main_guard(script: Path) -> bool:
    tree = ast.parse(script.read_text(encoding="utf-8"))
    return any(
        isinstance(node, ast.If)
        and any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test))
        for node in tree.body
    )
