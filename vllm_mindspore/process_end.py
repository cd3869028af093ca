# SPDX-License-Identifier: Apache-2.0
"""How processes end: a server that is asked to while it starts, and those that vLLM starts.

A server that starts is to leave at once. vLLM 0.32 raises KeyboardInterrupt on SIGTERM then, takes
it for the end of a socket and waits on; SIGINT waits until the model is loaded.

Processes that vLLM starts end on their parent's order, or because their parent is gone. A terminal
sends Ctrl-C to its whole process group. The serving process then stops its engine in order; an
engine or a rank that ends by itself meanwhile is taken for dead, and that is what vLLM reports
(EngineDeadError). Ignoring the signal is not enough: every run of a MindSpore graph puts
MindSpore's own SIGINT handler in place, which ends the process, and leaves it there. And a parent
that was killed orders nothing any more: unwatched, its engine would stay behind with the model.

A script that made an LLM ends its engine last of all, and the threads that take the answers and
watch the engine with it. Tensors that such a thread still held, and releases while the interpreter
is taken apart, abort the process.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import operator
import os
import signal
import sys
import threading
import time
import weakref
from multiprocessing import process, util
from types import FrameType

# vLLM shows loggers below its own. This module is imported before vLLM may be.
logger = logging.getLogger(f"vllm.{__name__}")

# What vLLM 0.32 calls its engine processes (one per data-parallel rank) and ranks.
_PROCESS_NAMES = ("EngineCore", "VllmWorker-")
_WATCH_NAME = "parent-watch"
_POLL_SECONDS = 0.5
# For the stop in order (ranks, shared memory), which waits 4 s for messages nobody takes.
_GRACE_SECONDS = 5.0

# What vLLM 0.32 calls the threads of a script that take an engine's answers and watch its process.
_ENGINE_THREADS = ("EngineCoreOutputQueueThread", "MPClientEngineMonitor")
_ENGINE_THREAD_SECONDS = 5.0

# What vLLM 0.32 calls its handler of SIGTERM in a server that does not serve yet.
_STARTING_HANDLER = "_interrupt_init"
_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A start has nothing to lose; its engine, which may be compiling, gets 5 s of these from vLLM.
_LEAVE_SECONDS = 10


def leave_on_signals_while_starting() -> None:
    """In a vLLM server that does not serve yet: SIGTERM and SIGINT end it. Does nothing elsewhere.

    vLLM replaces the handlers when it serves.
    """
    if getattr(signal.getsignal(signal.SIGTERM), "__name__", "") == _STARTING_HANDLER:
        leave_on_signals()


def leave_on_signals() -> None:
    """Let SIGTERM and SIGINT end this process without a traceback, with exit code 128 + signal."""
    for number in _ENDING_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays in force
            signal.signal(number, _leave)


def _leave(number: int, _frame: FrameType | None) -> None:
    for other in _ENDING_SIGNALS:
        signal.signal(other, signal.SIG_IGN)  # nothing interrupts the stopping
    # Whatever swallows the exception or blocks the way out: the kernel ends the process then.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_LEAVE_SECONDS)
    atexit.register(_end_without_teardown, 128 + number)  # the last one is called first
    raise SystemExit(128 + number)


def _end_without_teardown(code: int) -> None:
    """Calls the other functions that end a process, and ends it: taking thousands of modules apart
    behind them lasts 5 s on a busy machine, and then the alarm makes another exit code."""
    atexit.unregister(_end_without_teardown)
    try:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    finally:
        os._exit(code)


@functools.cache  # registers once; a forked process has that too
def follow_parent_from_the_start() -> None:
    """Follow the parent in forks of this process, and in this one if it is just being spawned.

    An engine reads its configuration for seconds, and waits for its parent for minutes, before
    vLLM asks the platform anything.
    """
    if process.current_process().name.startswith(_PROCESS_NAMES):
        _follow_parent()  # multiprocessing names a spawned process first of all
    util.register_after_fork(follow_parent, operator.call)


@functools.cache
def outlast_engine_threads() -> None:
    """Let this process end behind the threads that serve its engines.

    vLLM tells them to end by finalizers, which are called in reverse order of their creation: this
    one is made before any engine, and called behind all of theirs.
    """
    weakref.finalize(_wait_for_engine_threads, _wait_for_engine_threads)


def _wait_for_engine_threads() -> None:
    for thread in threading.enumerate():
        if thread.name in _ENGINE_THREADS:
            thread.join(_ENGINE_THREAD_SECONDS)


def follow_parent() -> None:
    """Leave the parent's process group, which gets Ctrl-C, and end when it is gone. Idempotent.

    Does nothing in processes that vLLM did not start, such as a script with its engine inside.
    """
    name = process.current_process().name
    if process.parent_process() is not None and name.startswith(_PROCESS_NAMES):
        _follow_parent()


def _follow_parent() -> None:
    if any(thread.name == _WATCH_NAME for thread in threading.enumerate()):
        return
    os.setpgid(0, 0)  # the session stays the same
    threading.Thread(
        target=_end_after_parent, args=(os.getppid(),), name=_WATCH_NAME, daemon=True
    ).start()


def _end_after_parent(found: int) -> None:
    """Wait until the parent has ended; then stop in order, and at once when that takes too long.

    `found` is what a process that is being spawned takes for its parent until it is told.
    """
    while os.getppid() == (parent := _parent(found)):
        time.sleep(_POLL_SECONDS)
    logger.error("The process that started this one (pid %d) is gone: stopping.", parent)
    os.kill(os.getpid(), signal.SIGTERM)  # handled by vLLM's engine and ranks
    time.sleep(_GRACE_SECONDS)
    os._exit(1)


def _parent(found: int) -> int:
    told = process.parent_process()
    return found if told is None or told.pid is None else told.pid
