# SPDX-License-Identifier: Apache-2.0
"""How processes that vLLM starts end: on their parent's order, or because their parent is gone.

A terminal sends Ctrl-C to its whole process group. The serving process then stops its engine in
order; an engine or a rank that ends by itself meanwhile is taken for dead, and that is what vLLM
reports (EngineDeadError). Ignoring the signal is not enough: every run of a MindSpore graph puts
MindSpore's own SIGINT handler in place, which ends the process, and leaves it there. And a parent
that was killed orders nothing any more: unwatched, its engine would stay behind with the model.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing import process

from vllm.logger import init_logger

logger = init_logger(f"vllm.{__name__}")  # vLLM shows loggers below its own

# What vLLM 0.32 calls its engine processes (one per data-parallel rank) and ranks.
_PROCESS_NAMES = ("EngineCore", "VllmWorker-")
_WATCH_NAME = "parent-watch"
_POLL_SECONDS = 0.5
# For the stop in order (ranks, shared memory), which waits 4 s for messages nobody takes.
_GRACE_SECONDS = 5.0


def follow_parent() -> None:
    """Leave the parent's process group, which gets Ctrl-C, and end when it is gone. Idempotent.

    Does nothing in processes that vLLM did not start, such as a script with its engine inside.
    """
    parent = process.parent_process()
    name = process.current_process().name
    watched = any(thread.name == _WATCH_NAME for thread in threading.enumerate())
    if parent is None or not name.startswith(_PROCESS_NAMES) or watched:
        return
    os.setpgid(0, 0)  # the session stays the same
    threading.Thread(target=_end_after, args=(parent.pid,), name=_WATCH_NAME, daemon=True).start()


def _end_after(parent: int) -> None:
    """Wait until `parent` has ended; then stop in order, and at once when that takes too long."""
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    logger.error("The process that started this one (pid %d) is gone: stopping.", parent)
    os.kill(os.getpid(), signal.SIGTERM)  # handled by vLLM's engine and ranks
    time.sleep(_GRACE_SECONDS)
    os._exit(1)
