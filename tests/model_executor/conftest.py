# SPDX-License-Identifier: Apache-2.0
"""MindSpore as a worker sets it up."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _runtime(mindspore_runtime: None) -> None:
    """Every test here may run MindSpore."""
