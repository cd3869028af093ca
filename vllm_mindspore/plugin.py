# SPDX-License-Identifier: Apache-2.0
"""Activation: the only caller of vLLM's registration functions.

vLLM finds us through two entry points, in every process. `import vllm_mindspore` also covers a
source tree that is not installed and a vLLM that was imported (and resolved its platform) before.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from vllm_mindspore import envs, process_end

if TYPE_CHECKING:
    from vllm.platforms.interface import Platform

PLATFORM = "vllm_mindspore.platform.MindSporePlatform"
ENTRY_POINT_NAMES = ("mindspore", "mindspore_models")

_PACKAGE = Path(__file__).resolve().parent
# Holds a dist-info folder with our entry points, for source trees that are not installed.
_SOURCE_TREE_METADATA = _PACKAGE / "source_tree"


def register_platform() -> str:
    """Entry point `vllm.platform_plugins`: the qualified name of our platform class."""
    process_end.follow_parent_from_the_start()
    process_end.outlast_engine_threads()
    return PLATFORM


def register_general() -> None:
    """Entry point `vllm.general_plugins`: models and patches, in every process. Idempotent.

    Does nothing where vLLM runs on another platform: its models and functions stay as they are.
    """
    if _is_other_platform(_current_platform()):
        return
    from vllm_mindspore import patches

    patches.apply_all()
    _register_models()
    _register_quantization_names()


def activate() -> None:
    """Make vLLM resolve to our platform. Imports nothing of vLLM unless vLLM is already there.

    Our variables are checked later, by the platform: vLLM swallows what a plugin raises on import.

    Raises:
        RuntimeError: vLLM resolved to another real platform, or VLLM_PLUGINS leaves us out.
    """
    process_end.follow_parent_from_the_start()
    process_end.outlast_engine_threads()
    current = _current_platform()
    _refuse_other_platform(current)
    _refuse_plugin_filter()
    envs.drop_target_device()
    envs.apply_defaults(ascend=envs.asks_for_npus())
    _ensure_entry_points()
    if current is not None and current.is_unspecified():
        _become_mindspore(current)
        register_general()


def _register_models() -> None:
    """Replace vLLM's models: no torch model can be chosen, and unknown names are told ours."""
    from vllm.model_executor.models import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from vllm_mindspore.registered_model import engine_defaults, registered_models

    ModelRegistry.models.clear()
    ModelRegistry.models.update(registered_models())
    MODELS_CONFIG_MAP.update(engine_defaults())


def _register_quantization_names() -> None:
    from vllm.model_executor.layers.quantization import (
        QUANTIZATION_METHODS,
        register_quantization_config,
    )

    from vllm_mindspore.quantization.compressed_tensors import METHOD
    from vllm_mindspore.quantization.description import TOOLS
    from vllm_mindspore.quantization.vllm_names import AscendQuantization, FileQuantization

    for name in TOOLS:
        if name not in QUANTIZATION_METHODS:
            register_quantization_config(name)(AscendQuantization)
    # In place of vLLM's own, which builds torch layers.
    register_quantization_config(METHOD)(FileQuantization)


def _current_platform() -> Platform | None:
    """What vLLM has resolved to in this process, or None while it has not."""
    current: Platform | None = getattr(sys.modules.get("vllm.platforms"), "_current_platform", None)
    return current


def _is_other_platform(current: Platform | None) -> bool:
    if current is None or current.is_unspecified():
        return False
    return not isinstance(current, import_module("vllm_mindspore.platform").MindSporePlatform)


def _refuse_other_platform(current: Platform | None) -> None:
    if not _is_other_platform(current):
        return
    raise RuntimeError(
        f"vLLM already runs on {type(current).__name__} in this process, so vllm_mindspore cannot "
        "take effect. Import vllm_mindspore before vllm, unset VLLM_TARGET_DEVICE (the value "
        "'cpu' makes vLLM skip every platform plugin), and uninstall other platform plugins or "
        f"leave them out with VLLM_PLUGINS={','.join(ENTRY_POINT_NAMES)}."
    )


def _refuse_plugin_filter() -> None:
    allowed = envs.allowed_plugins()
    if allowed is None or set(ENTRY_POINT_NAMES) <= set(allowed):
        return
    raise RuntimeError(
        f"VLLM_PLUGINS={','.join(allowed)} leaves vllm_mindspore out. Unset VLLM_PLUGINS or add "
        f"{','.join(ENTRY_POINT_NAMES)} to it."
    )


def _ensure_entry_points() -> None:
    """Make our entry points discoverable here and in spawned children when not installed."""
    installed = {point.name for point in entry_points(group="vllm.platform_plugins")}
    if ENTRY_POINT_NAMES[0] in installed:
        return
    folders = (_SOURCE_TREE_METADATA, _PACKAGE.parent)
    sys.path.extend(str(folder) for folder in folders if str(folder) not in sys.path)
    envs.prepend_python_path(folders)


def _become_mindspore(unspecified: Platform) -> None:
    """Turn the resolved UnspecifiedPlatform into ours.

    Every module that ran `from vllm.platforms import current_platform` holds this very object, so
    its class is exchanged in place; values that were derived from it at import are refreshed.
    """
    unspecified.__class__ = import_module("vllm_mindspore.platform").MindSporePlatform
    platform_queries = sys.modules.get("vllm.utils.platform_utils")
    for query in vars(platform_queries).values() if platform_queries else ():
        if hasattr(query, "cache_clear"):
            query.cache_clear()
    for name, module in list(sys.modules.items()):
        if name.startswith("vllm.") and isinstance(module, ModuleType):
            _refresh_pinning(module)


def _refresh_pinning(module: ModuleType) -> None:
    if vars(module).get("PIN_MEMORY") is True:
        vars(module)["PIN_MEMORY"] = False
