# SPDX-License-Identifier: Apache-2.0
"""Hostile compressed weights under address and undefined-behaviour sanitizers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "ops-fuzz"


@pytest.mark.full
def test_no_byte_outside_is_read() -> None:
    """Every flipped bit of small weights, and 3000 rounds of random damage."""
    configure = ["cmake", "-S", str(ROOT / "ops"), "-B", str(BUILD), "-G", "Ninja"]
    build = ["cmake", "--build", str(BUILD), "--target", "sparse_fuzz"]
    run = [str(BUILD / "tests" / "fuzz" / "sparse_fuzz"), "3000"]
    for command in ([*configure, "-DVMO_BUILD_FUZZ=ON"], build, run):
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    accepted, refused = re.findall(r"(\d+) accepted, (\d+) refused", done.stdout)[0]
    assert int(accepted) > 1000
    assert int(refused) > 1000
