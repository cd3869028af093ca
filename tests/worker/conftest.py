# SPDX-License-Identifier: Apache-2.0
"""The configuration of most worker tests, in a process where MindSpore runs as in a worker."""

from __future__ import annotations

import pytest
from vllm.config import VllmConfig

from tests.conftest import Configure


@pytest.fixture(scope="session", autouse=True)
def _runtime(mindspore_runtime: None) -> None:
    """Every test here may run MindSpore."""


@pytest.fixture(scope="session")
def config(configure: Configure) -> VllmConfig:
    """The configuration most tests share; they do not change it."""
    return configure()
