# SPDX-License-Identifier: Apache-2.0
"""The documents name what exists: files, make targets, architectures, variables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vllm_mindspore import envs
from vllm_mindspore.model_executor.models.registry import supported_architectures

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


def test_the_matrix_lists_every_architecture() -> None:
    text = (ROOT / "docs" / "models_and_features.md").read_text()
    listed = set(re.findall(r"^\| `(\w+ForCausalLM)` \|", text, re.MULTILINE))
    assert sorted(listed) == supported_architectures()
