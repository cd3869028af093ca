# SPDX-License-Identifier: Apache-2.0
"""Activation in fresh processes: every import order, with and without an installed package."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from vllm_mindspore import plugin
from vllm_mindspore.model_executor.models.registry import supported_architectures

RunPython = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[1]

full = pytest.mark.full  # repeats of an order that another test covers

CHECK = """
import sys
from vllm.platforms import current_platform
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.models import ModelRegistry
config = EngineArgs(model={model!r}).create_engine_config()
assert type(current_platform).__name__ == "MindSporePlatform", type(current_platform)
assert config.parallel_config.worker_cls.startswith("vllm_mindspore."), config.parallel_config
print("architectures", sorted(ModelRegistry.models))
assert not [name for name in sys.modules if name.split(".")[0] == "mindspore"]
"""
IMPORT_ORDERS = {
    "before_vllm": "import vllm_mindspore\nfrom vllm import LLM, SamplingParams",
    "after_import_vllm": "import vllm\nimport vllm_mindspore",
    "after_from_vllm": "from vllm import LLM, SamplingParams\nimport vllm_mindspore",
    "never": "from vllm import LLM, SamplingParams",
}
SPAWN = """
import multiprocessing
{first}

def child():
    from vllm.platforms import current_platform
    assert type(current_platform).__name__ == "MindSporePlatform", type(current_platform)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    process.join(120)
    assert process.exitcode == 0
"""


@pytest.fixture
def without_installation(tmp_path: Path) -> dict[str, str]:
    """Environment in which everything but this package is installed; its source is on the path.

    `python -S` keeps the real site-packages away; a folder of links stands in for it.
    """
    site = tmp_path / "site"
    site.mkdir()
    for item in Path(sysconfig.get_path("purelib")).iterdir():
        if "vllm_mindspore" not in item.name and item.suffix != ".pth":
            (site / item.name).symlink_to(item)
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(ROOT / "vllm_mindspore", source / "vllm_mindspore", ignore=ignored)
    return {"PYTHONPATH": f"{source}:{site}"}


def test_entry_points_are_installed() -> None:
    (platform,) = entry_points(group="vllm.platform_plugins", name=plugin.ENTRY_POINT_NAMES[0])
    assert platform.load()() == plugin.PLATFORM
    (general,) = entry_points(group="vllm.general_plugins", name=plugin.ENTRY_POINT_NAMES[1])
    assert general.load() is plugin.register_general
    (script,) = entry_points(group="console_scripts", name="vllm-mindspore")
    assert callable(script.load())


@pytest.mark.parametrize(
    "order",
    ["before_vllm", pytest.param("after_import_vllm", marks=full), "after_from_vllm", "never"],
)
def test_import_order_with_entry_points(
    run_python: RunPython, tiny_model: Path, order: str
) -> None:
    result = run_python(IMPORT_ORDERS[order] + CHECK.format(model=str(tiny_model)))
    assert f"architectures {supported_architectures()}" in result.stdout


@pytest.mark.parametrize(
    "order", ["before_vllm", pytest.param("after_import_vllm", marks=full), "after_from_vllm"]
)
def test_import_order_without_entry_points(
    run_python: RunPython,
    without_installation: dict[str, str],
    tmp_path: Path,
    tiny_model: Path,
    order: str,
) -> None:
    script = tmp_path / "script.py"
    script.write_text(IMPORT_ORDERS[order] + CHECK.format(model=str(tiny_model)))
    result = run_python(script, env=without_installation, flags=["-S"])
    assert f"architectures {supported_architectures()}" in result.stdout


def test_without_entry_points_vllm_alone_does_not_find_us(
    run_python: RunPython, without_installation: dict[str, str]
) -> None:
    code = "from vllm.platforms import current_platform as p; print(p.is_unspecified())"
    result = run_python(code, env=without_installation, flags=["-S"])
    assert result.stdout.split()[-1] == "True"


@pytest.mark.parametrize("order", [pytest.param("before_vllm", marks=full), "after_from_vllm"])
def test_spawned_children_find_us_without_entry_points(
    run_python: RunPython, without_installation: dict[str, str], tmp_path: Path, order: str
) -> None:
    # The import sits in main(): it is not repeated when the child imports the script.
    first = "def main():\n    " + IMPORT_ORDERS[order].replace("\n", "\n    ")
    first += "\n\nif __name__ == '__main__':\n    main()\n"
    script = tmp_path / "script.py"
    script.write_text(SPAWN.format(first=first))
    run_python(script, env=without_installation, flags=["-S"])


def test_importing_us_imports_neither_vllm_nor_torch_nor_mindspore(run_python: RunPython) -> None:
    code = (
        "import sys, vllm_mindspore; print(sorted({'vllm','torch','mindspore'} & set(sys.modules)))"
    )
    assert run_python(code).stdout.strip() == "[]"


def test_front_end_modules_do_not_import_mindspore(run_python: RunPython) -> None:
    modules = [
        *("vllm_mindspore.platform", "vllm_mindspore.plugin", "vllm_mindspore.patches"),
        *("vllm_mindspore.process_start", "vllm_mindspore.registered_model"),
        *("vllm_mindspore.config_checks", "vllm_mindspore.quantization.vllm_names"),
        *("vllm_mindspore.model_executor.models.registry", "vllm_mindspore.cli.main"),
        *("vllm_mindspore.cli.demo", "vllm_mindspore.cli.doctor", "vllm_mindspore.cli.eval"),
    ]
    code = "import sys\n" + "\n".join(f"import {name}" for name in modules)
    code += "\nprint('mindspore' in sys.modules)"
    assert run_python(code).stdout.split()[-1] == "False"


def test_target_device_cpu_does_not_switch_us_off(run_python: RunPython) -> None:
    code = (
        "import vllm_mindspore\nfrom vllm.platforms import current_platform as p\n"
        "print(type(p).__name__)"
    )
    result = run_python(code, env={"VLLM_TARGET_DEVICE": "cpu"})
    assert result.stdout.split()[-1] == "MindSporePlatform"


def test_other_platform_is_an_error(run_python: RunPython) -> None:
    code = (
        "import vllm.platforms as p\nfrom vllm.platforms.cpu import CpuPlatform\n"
        "p._current_platform = CpuPlatform()\nimport vllm_mindspore"
    )
    result = run_python(code, check=False)
    assert result.returncode == 1
    assert "vLLM already runs on CpuPlatform" in result.stderr
    assert "unset VLLM_TARGET_DEVICE" in result.stderr


# A class of somebody else's package, resolved by vLLM before we are imported.
FOREIGN = """
import vllm.platforms as platforms
from vllm.platforms.interface import Platform, PlatformEnum

class Foreign(Platform):
    _enum = PlatformEnum.OOT
    device_type = "cpu"

platforms._current_platform = Foreign()
"""


def test_other_out_of_tree_platform_is_an_error(run_python: RunPython) -> None:
    result = run_python(FOREIGN + "import vllm_mindspore", check=False)
    assert result.returncode == 1
    assert "RuntimeError: vLLM already runs on Foreign" in result.stderr
    assert "VLLM_PLUGINS=mindspore,mindspore_models" in result.stderr


def test_general_entry_point_leaves_another_platform_alone(run_python: RunPython) -> None:
    code = f"""
from vllm_mindspore.plugin import register_general
{FOREIGN}
import torch
from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
from vllm.model_executor.models import ModelRegistry
from vllm.model_executor.models.config import MODELS_CONFIG_MAP

def state():
    models = dict(ModelRegistry.models), dict(MODELS_CONFIG_MAP)
    return list(QUANTIZATION_METHODS), *models, torch.accelerator.synchronize

before = state()
register_general()
assert "Qwen3MoeForCausalLM" in before[1]
assert state() == before
"""
    run_python(code)


def test_plugin_filter_that_leaves_us_out_is_an_error(run_python: RunPython) -> None:
    result = run_python("import vllm_mindspore", env={"VLLM_PLUGINS": "other"}, check=False)
    assert result.returncode == 1
    assert "VLLM_PLUGINS=other leaves vllm_mindspore out" in result.stderr
    assert "mindspore,mindspore_models" in result.stderr


def test_plugin_filter_that_names_us_is_fine(run_python: RunPython) -> None:
    run_python("import vllm_mindspore", env={"VLLM_PLUGINS": "mindspore, mindspore_models"})


def test_activation_is_idempotent(run_python: RunPython) -> None:
    code = """
import os, sys, vllm_mindspore
before = dict(os.environ), list(sys.path)
vllm_mindspore.activate()
assert before == (dict(os.environ), list(sys.path))
"""
    run_python(code)


def test_general_registration_is_idempotent(run_python: RunPython) -> None:
    code = """
import vllm_mindspore
from vllm_mindspore.plugin import register_general
from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
from vllm.model_executor.models import ModelRegistry
register_general()
before = list(QUANTIZATION_METHODS), dict(ModelRegistry.models)
register_general()
assert before == (list(QUANTIZATION_METHODS), dict(ModelRegistry.models))
"""
    run_python(code)
