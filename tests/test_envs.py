# SPDX-License-Identifier: Apache-2.0
"""The table of environment variables: parsing, errors, defaults, its documentation page."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from vllm_mindspore import envs
from vllm_mindspore.device.kernel_library import ISA_NAMES

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = (*envs.GENERAL_DEFAULTS, *envs.RAY_DEFAULTS, *envs.ASCEND_DEFAULTS)
    for name in [*envs.REFUSED, *(item.name for item in (*envs.VARIABLES, *defaults))]:
        # Set, then deleted: monkeypatch also restores what code under test sets itself.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize("text", ["Native", "native", "NATIVE", " native "])
def test_model_backend_in_any_case(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("VLLM_MS_MODEL_BACKEND", text)
    assert envs.model_backend() == "Native"


def test_model_backend_unknown_lists_the_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MS_MODEL_BACKEND", "MindTwo")
    with pytest.raises(ValueError, match=r"VLLM_MS_MODEL_BACKEND='MindTwo'.*Choices.*Native"):
        envs.check()


@pytest.mark.parametrize("text", ["MindFormers", "mindformers"])
def test_model_backend_mindformers_says_what_to_use(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("VLLM_MS_MODEL_BACKEND", text)
    with pytest.raises(ValueError, match=r"not part of this release.*Native"):
        envs.check()


def test_old_backend_name_warns_and_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("vLLM_MODEL_BACKEND", "MindTwo")
    with (
        pytest.warns(FutureWarning, match="use VLLM_MS_MODEL_BACKEND"),
        pytest.raises(ValueError, match="vLLM_MODEL_BACKEND='MindTwo'"),
    ):
        envs.check()


def test_new_backend_name_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("vLLM_MODEL_BACKEND", "MindTwo")
    monkeypatch.setenv("VLLM_MS_MODEL_BACKEND", "Native")
    with pytest.warns(FutureWarning):
        assert envs.model_backend() == "Native"


def test_no_warning_without_the_old_name() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs.check()


def test_retired_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINDFORMERS_MODEL_CONFIG", "some.yaml")
    with pytest.raises(ValueError, match="MINDFORMERS_MODEL_CONFIG is set, but it is no longer"):
        envs.check()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("VLLM_MS_CPU_ISA", "sse", "Choices: generic, avx2"),
        ("VLLM_MS_NUM_THREADS", "0", "1 or more"),
        ("VLLM_MS_NUM_THREADS", "two", "1 or more"),
        ("VLLM_MS_KV_CACHE_MAX_GB", "-1", "positive"),
        ("VLLM_MS_KV_CACHE_MAX_GB", "nan", "positive"),
        ("VLLM_MS_KV_CACHE_MAX_GB", "much", "positive"),
        ("VLLM_MS_FUSED_KERNELS", "yes", "0 or 1"),
    ],
)
def test_wrong_values_are_named(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, message: str
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(ValueError, match=rf"{name}='{text}'.*{message}"):
        envs.check()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("VLLM_MS_CPU_ISA", "AVX2", "avx2"),
        ("VLLM_MS_NUM_THREADS", "3", 3),
        ("VLLM_MS_KV_CACHE_MAX_GB", "0.5", 0.5),
        ("VLLM_MS_FUSED_KERNELS", "0", False),
        ("VLLM_MS_FUSED_KERNELS", "1", True),
    ],
)
def test_values_are_parsed(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object
) -> None:
    monkeypatch.setenv(name, text)
    (variable,) = (item for item in envs.VARIABLES if item.name == name)
    assert variable.get() == value
    assert variable.is_set()


def test_instruction_sets_are_those_of_the_library() -> None:
    assert envs.CPU_ISAS == ISA_NAMES


@pytest.mark.parametrize("variable", envs.VARIABLES, ids=lambda item: item.name)
def test_empty_means_default(
    monkeypatch: pytest.MonkeyPatch, variable: envs.Variable[object]
) -> None:
    monkeypatch.setenv(variable.name, " ")
    assert variable.get() == variable.default
    assert not variable.is_set()


def test_defaults_are_set_only_when_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOG_v", "1")
    envs.apply_defaults(ascend=False)
    assert os.environ["GLOG_v"] == "1"  # noqa: SIM112 - MindSpore spells it so
    assert os.environ["MS_JIT_MODULES"] == "vllm_mindspore"
    assert "HCCL_EXEC_TIMEOUT" not in os.environ


def test_ascend_defaults_keep_what_the_documents_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HCCL_OP_EXPANSION_MODE", "AI_CPU")
    monkeypatch.setenv("MS_ENABLE_INTERNAL_BOOST", "off")
    envs.apply_defaults(ascend=True)
    assert os.environ["HCCL_OP_EXPANSION_MODE"] == "AI_CPU"
    assert os.environ["MS_ENABLE_INTERNAL_BOOST"] == "off"
    assert os.environ["MS_ENABLE_LCCL"] == "off"


def test_ray_reports_nothing_unless_it_was_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    envs.apply_ray_defaults()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    envs.apply_ray_defaults()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"


def test_torch_is_not_hidden_from_transformers() -> None:
    names = {default.name for default in (*envs.GENERAL_DEFAULTS, *envs.ASCEND_DEFAULTS)}
    assert "USE_TORCH" not in names


def test_op_plugin_is_set_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MS_OP_PLUGIN_PATH", "")
    ours = tmp_path / "ours.so"
    envs.set_op_plugin(ours)
    envs.set_op_plugin(ours)
    assert os.environ["MS_OP_PLUGIN_PATH"] == str(ours)


def test_foreign_op_plugin_is_an_error_naming_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MS_OP_PLUGIN_PATH", "/some/theirs.so")
    with pytest.raises(ValueError, match=r"/some/theirs\.so.*/our/ours\.so"):
        envs.set_op_plugin(Path("/our/ours.so"))


def test_python_path_is_prepended_without_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/old")
    for _ in range(2):
        envs.prepend_python_path([Path("/new"), Path("/old")])
    assert os.environ["PYTHONPATH"] == "/new:/old"


def test_unknown_variables_are_found_and_ours_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MS_NUM_THREADS", "1")
    monkeypatch.setenv("VLLM_KNOWN", "1")
    monkeypatch.setenv("VLLM_MS_NUM_THREDS", "1")
    unknown = envs.unknown_vllm_variables({"VLLM_KNOWN"})
    assert "VLLM_MS_NUM_THREDS" in unknown
    assert not {"VLLM_MS_NUM_THREADS", "VLLM_KNOWN"} & set(unknown)


def test_documentation_page_is_current() -> None:
    page = ROOT / "docs" / "environment_variables.md"
    assert page.read_text(encoding="utf-8") == envs.markdown(), "run `make docs`"
