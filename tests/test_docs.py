# SPDX-License-Identifier: Apache-2.0
"""The documents name what exists: files, make targets, architectures, variables."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from docs.matrix import features, hardware, models, rows
from docs.matrix.page import markdown
from tests.e2e.checkpoints import SPECS
from vllm_mindspore import config_checks, envs
from vllm_mindspore.model_executor.models.registry import supported_architectures
from vllm_mindspore.unused_options import UNUSED, UNUSED_EARLY

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_variables_exist(page: Path) -> None:
    known = {variable.name for variable in envs.VARIABLES}
    named = set(re.findall(r"\bVLLM_MS_[A-Z_]+\b", page.read_text()))
    assert named <= known


def test_pages_are_what_make_docs_writes() -> None:
    generated = {
        "environment_variables.md": envs.markdown(),
        "models_and_features.md": markdown(),
    }
    found = {name: (ROOT / "docs" / name).read_text() for name in generated}
    assert found == generated, "run `make docs`"


def test_the_matrix_lists_every_architecture() -> None:
    assert [model.architecture for model in models.MODELS] == supported_architectures()


@pytest.mark.parametrize("model", models.MODELS, ids=lambda model: model.architecture)
def test_checkpoints_of_a_model_have_its_architecture(model: rows.Model) -> None:
    assert model.checkpoints
    for name in model.checkpoints:
        model_type = SPECS[name].config_class.model_type
        assert MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type] == model.architecture


def test_every_checkpoint_is_in_the_matrix() -> None:
    listed = [name for model in models.MODELS for name in model.checkpoints]
    assert sorted(listed) == sorted(SPECS)


ROWS = (*models.CONFIG, *features.FEATURES, *hardware.TESTED)
TESTS = {*models.TESTS, *(test for row in ROWS for test in row.tests)}


@pytest.mark.parametrize("node", sorted(TESTS))
def test_test_of_the_matrix_exists(node: str) -> None:
    file, _, function = node.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_every_row_has_a_test() -> None:
    assert [row.feature for row in ROWS if not row.tests] == []


@pytest.mark.parametrize("row", features.REFUSED, ids=lambda row: row.check)
def test_refusing_check_of_the_matrix_exists(row: rows.Refused) -> None:
    module, _, name = row.check.partition(":")
    if module == "unused_options":
        assert name in [unused.path for unused in (*UNUSED, *UNUSED_EARLY)]
        return
    check = getattr(import_module(f"vllm_mindspore.{module}"), name)
    if module == "config_checks" and name.startswith("_"):
        assert check in config_checks.CHECKS


def test_every_check_is_in_the_matrix() -> None:
    """But for those that check values of a supported feature, or that only speak."""
    of_supported = {"load_format", "_block_size", "_eager"}
    of_files = {"_model_config", "_model_files"}
    of_tables = {"_unused_options", "_unused_variables"}
    listed = {row.check.partition(":")[2] for row in features.REFUSED}
    names = {check.__name__ for check in config_checks.CHECKS}
    assert names - listed == of_supported | of_files | of_tables
