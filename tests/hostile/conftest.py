# SPDX-License-Identifier: Apache-2.0
"""What all hostile files meet: MindSpore set up as in a worker."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _runtime(mindspore_runtime: None) -> None:
    """Loading makes MindSpore tensors, and a process is set up once."""
