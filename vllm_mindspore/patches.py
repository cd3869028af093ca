# SPDX-License-Identifier: Apache-2.0
"""What we change in other packages: one record per change, the only place that assigns to them.

Each record says why it exists and when it goes. `tests/test_patches.py` fails for a record that is
no longer needed. The aim is an empty list.
"""

from __future__ import annotations

import concurrent.futures
import functools
import operator
import os
import queue
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import torch

from vllm_mindspore import request_checks
from vllm_mindspore.model_executor.model_loader import checkpoint_files, preflight

Function = Callable[..., Any]


@dataclass(frozen=True)
class Patch:
    """One function of another package, replaced while the original misbehaves.

    Attributes:
        target: "module:function" or "module:Class.method". A module that is not loaded when the
            records are applied is left alone: it belongs to other processes.
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
        path, _, attribute = name.rpartition(".")
        holder = import_module(module)
        setattr(getattr(holder, path) if path else holder, attribute, self.replacement)

    def _current(self) -> Function:
        module, name = self.target.split(":")
        function: Function = operator.attrgetter(name)(import_module(module))
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


def _client_shutdown_patch() -> Patch:
    target = "vllm.v1.engine.core_client:MPClient.shutdown"

    def shutdown(client: Any, timeout: float | None = None) -> None:
        """vLLM's shutdown, then an error to everybody who waits for the engine."""
        _ORIGINALS[target](client, timeout)
        _end_waiting(client)

    return Patch(
        target=target,
        why="The client of an engine that was killed closes the connection and tells nobody: a "
        "script in LLM() or LLM.generate(), and a server that asks its engine what it can do, "
        "wait for ever.",
        upstream="none",
        retire_when="vLLM's clients pass the death of a killed engine on to those who wait for it",
        replacement=shutdown,
        misbehaves=_leaves_callers_waiting,
    )


def _end_waiting(client: Any) -> None:
    """Nothing will come any more: raise EngineDeadError where an answer is waited for."""
    error = import_module("vllm.v1.engine.exceptions").EngineDeadError()
    if isinstance(client.outputs_queue, queue.Queue):  # one that is not asynchronous
        client.outputs_queue.put_nowait(error)
    for future in list(client.utility_results.values()):
        if isinstance(future, concurrent.futures.Future):
            _fail(future, error)
        elif not future.get_loop().is_closed():
            future.get_loop().call_soon_threadsafe(_fail, future, error)


def _fail(future: Any, error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _leaves_callers_waiting(shutdown: Function) -> bool:
    return "utility_results" not in shutdown.__code__.co_names


def _ray_advice_patch() -> Patch:
    def require_ray() -> None:
        """Raise ValueError, with our advice, where Ray cannot be imported."""
        ray_utils = import_module("vllm.v1.executor.ray_utils")
        if not ray_utils.ray_is_available():
            raise ValueError(
                f"The Ray executor needs Ray, which cannot be imported ({ray_utils.ray_import_err})"
                ". Install the verified version: pip install 'vllm-mindspore[ray]'"
            )

    return Patch(
        target="vllm.v1.executor.ray_utils:assert_ray_available",
        why="It runs before a platform is asked anything, and advises to install any Ray: the "
        "executor depends on how Ray names resources and starts clusters.",
        upstream="none",
        retire_when="vLLM asks the platform about an executor before it checks what that needs",
        replacement=require_ray,
        misbehaves=_advises_any_ray,
    )


def _advises_any_ray(require_ray: Function) -> bool:
    texts = (text for text in require_ray.__code__.co_consts if isinstance(text, str))
    return any("pip install ray" in text for text in texts)


def _preflight_patch() -> Patch:
    target = "vllm.engine.arg_utils:maybe_override_with_speculators"

    def check_and_override(model: str, *args: Any, **kwargs: Any) -> Any:
        """Our check of config.json, then what vLLM reads it for first."""
        preflight.check_config(Path(model), remote_code=bool(kwargs.get("trust_remote_code")))
        return _ORIGINALS[target](model, *args, **kwargs)

    return Patch(
        target=target,
        why="vLLM and transformers read config.json before they ask the platform anything. A list "
        "ends in an AttributeError that names no file, and num_hidden_layers of 10**9 fills the "
        "memory: transformers writes the kind of every layer down. A quantization_config left from "
        "other weights, or code that was not copied, gets a message that does not say so.",
        upstream="none",
        retire_when="vLLM asks the platform before it reads config.json",
        replacement=check_and_override,
        misbehaves=lambda function: "current_platform" not in function.__code__.co_names,
    )


def _header_patch() -> Patch:
    target = "vllm.transformers_utils.config:parse_safetensors_file_metadata"

    def check_and_parse(path: str | os.PathLike[str]) -> dict[str, Any]:
        """Our check of a header, then what vLLM reads of it."""
        checkpoint_files.header_of(Path(path))
        found: dict[str, Any] = _ORIGINALS[target](path)
        return found

    return Patch(
        target=target,
        why="vLLM reads the headers of a model with tied embeddings, or without a dtype, before it "
        "asks the platform anything: it trusts the length in the file (a git-lfs pointer claims "
        "2 * 10**18 bytes), and its errors do not name it.",
        upstream="none",
        retire_when="vLLM checks the length of a header and names the file",
        replacement=check_and_parse,
        misbehaves=_names_no_file,
    )


def _names_no_file(parse: Function) -> bool:
    try:
        parse(os.devnull)
    except Exception as error:  # noqa: BLE001 - which one it is may change
        return os.devnull not in str(error)
    return True


def _auto_dtype_patch() -> Patch:
    target = "vllm.config.model:_get_and_verify_dtype"

    def dtype_of(model: str, config: Any, dtype: Any, **kwargs: Any) -> torch.dtype:
        """The one dtype that the files can be computed in, if none was asked for; else vLLM's."""
        only = preflight.only_dtype(Path(model)) if dtype == "auto" else None
        found: torch.dtype = _ORIGINALS[target](model, config, only or dtype, **kwargs)
        return found

    return Patch(
        target=target,
        why="--dtype auto is the dtype of config.json, and afterwards nobody can tell it from one "
        "that was asked for. Compressed weights are computed in float16 alone, while the "
        "config.json beside them may be that of the bfloat16 model.",
        upstream="none",
        retire_when="vLLM asks a quantization method, or the platform, what `auto` is",
        replacement=dtype_of,
        misbehaves=lambda function: "quantization" not in function.__code__.co_varnames,
    )


def _guidance_patch() -> Patch:
    target = "vllm.v1.structured_output.backend_guidance:validate_guidance_grammar"

    def validate(params: Any, *args: Any, **kwargs: Any) -> None:
        """Our bound on the lengths of lists, then vLLM's validation."""
        request_checks.check_schemas(params.structured_outputs)
        _ORIGINALS[target](params, *args, **kwargs)

    return Patch(
        target=target,
        why="A JSON schema with minItems or maxItems of 10**9 ends the whole server, by exhausted "
        "memory or a stack overflow in the library of the guidance backend. vLLM tries it with "
        "every schema that its first backend refuses.",
        upstream="none",
        retire_when="llguidance refuses such a schema",
        replacement=validate,
        misbehaves=lambda function: True,
    )


PATCHES: tuple[Patch, ...] = (
    *(_accelerator_patch(name) for name in ("empty_cache", "empty_host_cache", "synchronize")),
    _engine_stop_patch(),
    _serve_patch(),
    _client_shutdown_patch(),
    _preflight_patch(),
    _header_patch(),
    _auto_dtype_patch(),
    _guidance_patch(),
    _ray_advice_patch(),
)


def apply_to_front_end() -> None:
    """Apply every record, also to the client of engines, which a server loads late."""
    import_module("vllm.v1.engine.core_client")
    apply_all()


def apply_all() -> None:
    """Apply every record that is still needed. Idempotent."""
    for patch in PATCHES:
        patch.apply()
