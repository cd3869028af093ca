# SPDX-License-Identifier: Apache-2.0
"""Every patch record works, is described, and is still needed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import PretrainedConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams
from vllm.v1.engine.core_client import MPClient
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector

from vllm_mindspore import patches
from vllm_mindspore.patches import Patch

# Applied where vLLM has loaded them: in processes that serve.
import_module("vllm.v1.engine.utils")
import_module("vllm.entrypoints.launchers.api_server.entry")
import_module("vllm.v1.engine.core_client")
import_module("vllm.v1.structured_output.backend_guidance")
import_module("vllm.engine.arg_utils")

ACCELERATOR = [patch for patch in patches.PATCHES if patch.target.startswith("torch.accelerator:")]
ENGINE_STOP, SERVE, CLIENT_SHUTDOWN, PREFLIGHT, HEADERS, AUTO_DTYPE, GUIDANCE, RAY_ADVICE = (
    patch for patch in patches.PATCHES if patch not in ACCELERATOR
)
each_patch = pytest.mark.parametrize("patch", patches.PATCHES, ids=lambda item: item.target)
each_accelerator_patch = pytest.mark.parametrize("patch", ACCELERATOR, ids=lambda item: item.target)


@pytest.fixture
def unpatched(monkeypatch: pytest.MonkeyPatch, patch: Patch) -> Patch:
    """The record with the original in place; afterwards everything is as before."""
    monkeypatch.setattr(patch.target.replace(":", "."), patch.original())
    return patch


@each_patch
def test_original_still_misbehaves(unpatched: Patch) -> None:
    if unpatched in ACCELERATOR and torch.accelerator.is_available():
        pytest.skip("the originals fail only where torch has no accelerator")
    assert unpatched.needed(), f"retire it: {unpatched.target} ({unpatched.retire_when})"


@each_accelerator_patch
def test_effect(unpatched: Patch) -> None:
    if torch.accelerator.is_available():
        pytest.skip("nothing is replaced where torch has an accelerator")
    _, name = unpatched.target.split(":")
    with pytest.raises(RuntimeError, match="accelerator"):
        getattr(torch.accelerator, name)()
    unpatched.apply()
    assert unpatched.applied()
    assert getattr(torch.accelerator, name)() is None


@each_patch
def test_applying_twice_keeps_the_original(unpatched: Patch) -> None:
    original = unpatched.original()
    unpatched.apply()
    unpatched.apply()
    assert unpatched.original() is original


@each_accelerator_patch
def test_is_left_alone_with_an_accelerator(
    monkeypatch: pytest.MonkeyPatch, unpatched: Patch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    unpatched.apply()
    assert not unpatched.applied()


@each_patch
def test_module_that_is_not_loaded_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, unpatched: Patch
) -> None:
    module, _ = unpatched.target.split(":")
    with monkeypatch.context() as context:
        context.delitem(sys.modules, module)
        unpatched.apply()
        assert module not in sys.modules
    assert not unpatched.applied()


@pytest.mark.parametrize(
    ("limits", "seconds"), [((0, 0), 6), ((30, 0), 0), ((30, 12.5), 12.5), ((0, None), None)]
)
@pytest.mark.parametrize("patch", [ENGINE_STOP], ids=lambda item: item.target)
def test_engine_that_aborts_its_requests_has_time_to_stop(
    unpatched: Patch, limits: tuple[float, float | None], seconds: float | None
) -> None:
    unpatched.apply()
    assert import_module("vllm.v1.engine.utils").get_engine_process_shutdown_timeout(*limits) == (
        seconds
    )


@pytest.mark.parametrize("patch", [RAY_ADVICE], ids=lambda item: item.target)
def test_missing_ray_is_answered_with_our_extra(
    monkeypatch: pytest.MonkeyPatch, unpatched: Patch
) -> None:
    ray_utils = import_module("vllm.v1.executor.ray_utils")
    unpatched.apply()
    ray_utils.assert_ray_available()
    monkeypatch.setattr(ray_utils, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'vllm-mindspore\[ray\]'"):
        ray_utils.assert_ray_available()


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "unasked"])
@pytest.mark.parametrize("patch", [SERVE], ids=lambda item: item.target)
def test_server_ends_its_requests_and_fails_when_it_was_not_asked_to_end(
    monkeypatch: pytest.MonkeyPatch, patch: Patch, asked: bool
) -> None:
    async def dummy_shutdown() -> None:
        await asyncio.sleep(0)

    async def shutdown() -> None:
        await asyncio.sleep(0)

    async def serve_http(*_args: object, **_kwargs: object) -> Coroutine[Any, Any, None]:
        return shutdown() if asked else dummy_shutdown()

    processor = OutputProcessor(None, log_stats=False)
    waiting = RequestOutputCollector(RequestOutputKind.DELTA, "open")
    processor.request_states["open"] = SimpleNamespace(queue=waiting)
    engine = SimpleNamespace(output_processor=processor)
    app = SimpleNamespace(state=SimpleNamespace(engine_client=engine))

    async def run() -> None:
        ending = await patch.replacement(app, sock=None)
        with pytest.raises(EngineDeadError):
            waiting.get_nowait()
        await ending

    module, name = patch.target.split(":")
    monkeypatch.setattr(import_module(module), name, serve_http)
    monkeypatch.setattr(patches, "_ORIGINALS", {patch.target: serve_http})
    if asked:
        asyncio.run(run())
    else:
        with pytest.raises(SystemExit) as ending:
            asyncio.run(run())
        assert ending.value.code == 1


def test_listener_does_not_see_the_connection_close() -> None:
    """The two tasks of a client, wired as in vLLM: the reader's end is the engine's death."""
    events: list[str] = []
    outputs: asyncio.Queue[str] = asyncio.Queue()

    async def read() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            outputs.put_nowait("engine is dead")

    async def listen() -> None:
        while True:
            events.append(await outputs.get())

    class Client:
        def __init__(self, reader: asyncio.Task[None], listener: asyncio.Task[None]) -> None:
            loop = asyncio.get_running_loop()
            manager = SimpleNamespace(shutdown=self.stop_engine)
            self.engine_core = SimpleNamespace(
                resources=Resources(lambda: loop.call_soon_threadsafe(reader.cancel), manager),
                _finalizer=SimpleNamespace(detach=lambda: object()),
            )
            self.output_handler = listener

        def stop_engine(self, timeout: float | None) -> None:
            events.append(f"engine stopped within {timeout}")

        def shutdown(self, timeout: float | None) -> None:
            time.sleep(0.2)  # time for the tasks, which run in another thread

    async def run() -> None:
        tasks = asyncio.create_task(read()), asyncio.create_task(listen())
        await asyncio.sleep(0)
        client = Client(*tasks)
        await asyncio.to_thread(patches._stop_in_order, client, timeout=3)
        await asyncio.wait(tasks, timeout=1)

    asyncio.run(run())
    assert events == ["engine stopped within 3"]


@dataclass
class Resources:
    """Called to close the connection, as in vLLM."""

    close: Callable[[], object]
    engine_manager: object

    def __call__(self) -> None:
        self.close()


def waiting_client() -> SimpleNamespace:
    """What a client has of those who wait for its engine, with nothing to close."""
    return SimpleNamespace(
        _finalizer=SimpleNamespace(detach=lambda: None),
        outputs_queue=queue.Queue(),
        utility_results={},
    )


@pytest.mark.parametrize("patch", [CLIENT_SHUTDOWN], ids=lambda item: item.target)
def test_callers_of_a_dead_engine_get_an_error(unpatched: Patch) -> None:
    client = waiting_client()
    waiting, answered = concurrent.futures.Future[int](), concurrent.futures.Future[int]()
    answered.set_result(3)
    client.utility_results = {1: waiting, 2: answered}
    unpatched.original()(client)
    assert not waiting.done()
    unpatched.apply()
    MPClient.shutdown(client)
    assert isinstance(waiting.exception(), EngineDeadError)
    assert isinstance(client.outputs_queue.get_nowait(), EngineDeadError)
    assert answered.result() == 3


@pytest.mark.parametrize("patch", [CLIENT_SHUTDOWN], ids=lambda item: item.target)
def test_coroutines_that_call_a_dead_engine_get_an_error(unpatched: Patch) -> None:
    async def run() -> None:
        client = waiting_client()
        client.outputs_queue = asyncio.Queue()
        waiting = asyncio.get_running_loop().create_future()
        client.utility_results = {1: waiting}
        await asyncio.to_thread(MPClient.shutdown, client)  # as the thread that watches engines
        with pytest.raises(EngineDeadError):
            await asyncio.wait_for(waiting, 5)
        assert client.outputs_queue.empty()  # the reader's end tells that

    unpatched.apply()
    asyncio.run(run())


@pytest.mark.parametrize("patch", [PREFLIGHT], ids=lambda item: item.target)
def test_config_is_checked_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch, unpatched: Patch, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("[]")
    with monkeypatch.context() as context:
        context.setattr(patches, "apply_all", lambda: None)
        with pytest.raises(Exception) as error:  # noqa: PT011 - AttributeError as it happens
            EngineArgs(str(tmp_path)).create_engine_config()
    retire = f"retire it: {unpatched.target} ({unpatched.retire_when})"
    assert str(tmp_path) not in str(error.value), retire
    unpatched.apply()
    with pytest.raises(ValueError, match="expected a JSON object, found a list") as refusal:
        EngineArgs(str(tmp_path)).create_engine_config()
    assert str(tmp_path / "config.json") in str(refusal.value)


@pytest.mark.parametrize("patch", [HEADERS], ids=lambda item: item.target)
def test_header_is_checked_before_it_is_read(unpatched: Patch, tmp_path: Path) -> None:
    read = import_module("vllm.transformers_utils.config").get_safetensors_params_metadata
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    retire = f"retire it: {unpatched.target} ({unpatched.retire_when})"
    with pytest.raises(Exception) as error:  # noqa: PT011 - MemoryError or OverflowError
        read(str(tmp_path))
    assert str(file) not in str(error.value), retire
    unpatched.apply()
    with pytest.raises(ValueError, match="it is a git-lfs pointer") as refusal:
        read(str(tmp_path))
    assert str(file) in str(refusal.value)
    save_file({"w": torch.zeros(2, 3)}, file)
    assert read(str(tmp_path))["w"]["shape"] == [2, 3]


# With the memory a test may take. Ends by memory or by the end of the stack, whatever is first.
@pytest.mark.parametrize("patch", [AUTO_DTYPE], ids=lambda item: item.target)
def test_auto_is_the_one_dtype_of_compressed_weights(unpatched: Patch, tmp_path: Path) -> None:
    """A folder of which nobody has to read more than the description; config.json says another."""
    (tmp_path / "rank_0").mkdir()
    (tmp_path / "quantization_description.json").write_text('{"rank_0": {}}')
    config = PretrainedConfig(dtype="bfloat16")

    def dtype(asked: str) -> torch.dtype:
        model = import_module("vllm.config.model")
        found = model._get_and_verify_dtype(str(tmp_path), config, asked, is_pooling_model=False)
        assert isinstance(found, torch.dtype)
        return found

    assert dtype("auto") == torch.bfloat16
    unpatched.apply()
    assert (dtype("auto"), dtype("bfloat16")) == (torch.float16, torch.bfloat16)
    (tmp_path / "quantization_description.json").unlink()
    assert dtype("auto") == torch.bfloat16


BILLION = """
import resource
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.structured_output.backend_guidance import validate_guidance_grammar
schema = {"type": "array", "maxItems": 10**9}
params = SamplingParams(structured_outputs=StructuredOutputsParams(json=schema))
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
try:
    validate_guidance_grammar(params)
except VLLMValidationError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("patch", [GUIDANCE], ids=lambda item: item.target)
def test_schema_of_a_billion_elements_ends_its_process(unpatched: Patch, run_python: Any) -> None:
    child = run_python(BILLION, check=False, timeout=120)
    retire = f"retire it: {unpatched.target} ({unpatched.retire_when})"
    assert child.returncode < 0, retire
    unpatched.apply()
    structured = StructuredOutputsParams(json={"type": "array", "maxItems": 10**9})
    with pytest.raises(VLLMValidationError, match="maxItems=1e"):
        validate_guidance(SamplingParams(structured_outputs=structured))
    validate_guidance(SamplingParams(structured_outputs=StructuredOutputsParams(json={})))


def validate_guidance(params: SamplingParams) -> None:
    import_module("vllm.v1.structured_output.backend_guidance").validate_guidance_grammar(params)


@each_patch
def test_is_described(patch: Patch) -> None:
    assert len(patch.why) > 20
    assert patch.retire_when
    assert patch.upstream == "none" or patch.upstream.startswith("https://")


def test_targets_are_distinct() -> None:
    targets = [patch.target for patch in patches.PATCHES]
    assert len(set(targets)) == len(targets)
