# SPDX-License-Identifier: Apache-2.0
"""The AMX level with its tile instructions in software: packing, tails and epilogues are run.

For machines without a tile unit; where there is one, the other tests run the real instructions.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from ops.tests.native import Native

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "ops-amx-emulation"
LIBRARY = BUILD / "lib" / "libvmo_amx_emulated.so"


@pytest.fixture(scope="module")
def emulated(library: Native) -> Path:
    """The library with emulated tiles, built from the present sources: minutes of compilation."""
    if library.control.isa_supported("amx"):
        pytest.skip("the other tests run the real instructions")
    if not library.control.isa_supported("avx512_bf16"):
        pytest.skip("the rest of the amx level needs avx512_bf16")
    configure = ["cmake", "-S", str(ROOT / "ops"), "-B", str(BUILD), "-G", "Ninja"]
    options = ["-DVMO_BUILD_AMX_EMULATION=ON", f"-DVMO_OUTPUT_DIR={LIBRARY.parent}"]
    build = ["cmake", "--build", str(BUILD), "--target", "vmo_amx_emulated"]
    for command in ([*configure, *options], build):
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return LIBRARY


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the AMX level exists on x86-64 only")
def test_kernels_on_emulated_tiles(emulated: Path) -> None:
    """The kernel tests themselves, of the amx level, on that library."""
    files = [
        f"ops/tests/test_{name}.py"
        for name in ("attention", "matmul", "int8", "sparse", "weight_only", "guard_pages")
    ]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "amx", *files],
        env={**os.environ, "VMO_TEST_LIBRARY": str(emulated)},
        cwd=ROOT, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    assert " skipped" not in result.stdout
    assert " passed" in result.stdout
