# SPDX-License-Identifier: Apache-2.0
"""What we change in other packages: one record per change, the only place that assigns to them.

Each record says why it exists and when it goes. `tests/test_patches.py` fails for a record that is
no longer needed. The aim is an empty list.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn

import torch

Function = Callable[..., Any]


@dataclass(frozen=True)
class Patch:
    """One function of another package, replaced while the original misbehaves.

    Attributes:
        target: "module:attribute". A module that is not loaded when the records are applied is left
            alone: it belongs to other processes.
        why: symptom and cause.
        upstream: link to the report, or "none".
        retire_when: the condition under which the record is deleted.
        replacement: what takes the place of the original.
        misbehaves: tells, given the original, whether it still needs replacing.
    """

    target: str
    why: str
    upstream: str
    retire_when: str
    replacement: Function
    misbehaves: Callable[[Function], bool]

    def original(self) -> Function:
        """The function as its package defines it, applied patch or not."""
        current = self._current()
        return current if current is not self.replacement else _ORIGINALS[self.target]

    def needed(self) -> bool:
        """Whether the original still misbehaves on this machine."""
        return self.misbehaves(self.original())

    def applied(self) -> bool:
        """Whether the replacement is in place."""
        return self._current() is self.replacement

    def apply(self) -> None:
        """Put the replacement in place if it is needed. Idempotent."""
        module, name = self.target.split(":")
        if module not in sys.modules or self.applied() or not self.needed():
            return
        _ORIGINALS[self.target] = self._current()
        setattr(import_module(module), name, self.replacement)

    def _current(self) -> Function:
        module, name = self.target.split(":")
        function: Function = getattr(import_module(module), name)
        return function


_ORIGINALS: dict[str, Function] = {}


def _raises_without_accelerator(function: Function) -> bool:
    if torch.accelerator.is_available():
        return False  # calling it would start the accelerator's runtime before a fork
    try:
        function()
    except RuntimeError:
        return True
    return False


def _accelerator_patch(name: str) -> Patch:
    def nothing_to_do(*_args: object, **_kwargs: object) -> None:
        return None

    return Patch(
        target=f"torch.accelerator:{name}",
        why="vLLM calls it on every platform that is not its own CPU platform (shutdown, cleanup); "
        "on a machine where torch has no accelerator torch raises RuntimeError.",
        # Solved there for vLLM's own CPU platform only.
        upstream="https://github.com/vllm-project/vllm/issues/41660",
        retire_when="vLLM asks the platform, or torch makes the call a no-op without accelerator",
        replacement=nothing_to_do,
        misbehaves=_raises_without_accelerator,
    )


# Long enough for the step that is under way; a server whose engine died has to end within 10 s.
_ENGINE_STOP_SECONDS = 6.0


def _engine_stop_seconds(requests: float | None, process: float | None) -> float | None:
    """How long an engine may take to stop; `requests` is what its requests are given before."""
    return _ENGINE_STOP_SECONDS if requests == 0 and process == 0 else process


def _engine_stop_patch() -> Patch:
    return Patch(
        target="vllm.v1.engine.utils:get_engine_process_shutdown_timeout",
        why="--shutdown-timeout 0 (the default) is to abort requests, but the engine itself gets "
        "0 s too: SIGKILL follows SIGTERM at once. Clients of aborted requests get no last message "
        "and ranks and shared memory are left to others.",
        # Solved there for ROCm only.
        upstream="none",
        retire_when="vLLM gives an engine that aborts its requests time to stop on every platform",
        replacement=_engine_stop_seconds,
        misbehaves=lambda function: function(0, 0) == 0,
    )


def _serve_patch() -> Patch:
    target = "vllm.entrypoints.launchers.api_server.entry:serve_http"

    async def serve(app: Any, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, None]:
        """vLLM's serve_http, then an answer to every open request and the right exit code."""
        engine_client = app.state.engine_client  # the application drops its state when it ends
        if engine_client is not None:
            engine_client.shutdown = functools.partial(_stop_in_order, engine_client)
        ending: Coroutine[Any, Any, None] = await _ORIGINALS[target](app, *args, **kwargs)
        _end_open_requests(engine_client)
        asked = getattr(ending, "__name__", "") != _ENDING_UNASKED
        return ending if asked else _fail_after(ending)

    return Patch(
        target=target,
        why="A server whose engine died ends with exit code 0, as if it had been asked to, and is "
        "not started again by what restarts services that failed. A server whose engine had to be "
        "killed while it was stopping waits for ever for the requests that engine had. A server "
        "that stops in order may log EngineDeadError: it closes the connection to the engine, "
        "which counts as the engine's death, while it still listens.",
        upstream="none",
        retire_when="vLLM's server ends with an error after its engine died",
        replacement=serve,
        misbehaves=_ends_unasked_without_error,
    )


def _stop_in_order(engine_client: Any, timeout: float | None = None) -> None:
    """AsyncLLM.shutdown: first the engine, then who listens to it, then the connection."""
    core, listener = engine_client.engine_core, engine_client.output_handler
    if core._finalizer.detach() is not None:  # else it is stopped, or its death was noticed
        if core.resources.engine_manager is not None:
            core.resources.engine_manager.shutdown(timeout=timeout)
        if listener is not None:
            listener.get_loop().call_soon_threadsafe(listener.cancel)
        core.resources()
    type(engine_client).shutdown(engine_client, timeout=timeout)


def _end_open_requests(engine_client: Any) -> None:
    """The engine has stopped: nothing will come for the requests that are still waiting."""
    if engine_client is not None:
        error = import_module("vllm.v1.engine.exceptions").EngineDeadError()
        engine_client.output_processor.propagate_error(error)


# What serve_http hands back to be awaited, last, when it ends without a signal: does nothing.
_ENDING_UNASKED = "dummy_shutdown"


async def _fail_after(ending: Coroutine[Any, Any, None]) -> NoReturn:
    await ending
    raise SystemExit(1)


def _ends_unasked_without_error(serve_http: Function) -> bool:
    return any(
        getattr(constant, "co_name", "") == _ENDING_UNASKED
        for constant in serve_http.__code__.co_consts
    )


PATCHES: tuple[Patch, ...] = (
    *(_accelerator_patch(name) for name in ("empty_cache", "empty_host_cache", "synchronize")),
    _engine_stop_patch(),
    _serve_patch(),
)


def apply_all() -> None:
    """Apply every record that is still needed. Idempotent."""
    for patch in PATCHES:
        patch.apply()
