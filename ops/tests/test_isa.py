# SPDX-License-Identifier: Apache-2.0
"""Choice of the instruction set and of the thread count, by environment and at run time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.tests.native import Native, native_path
from vllm_mindspore.device.kernel_library import ISA_NAMES, KernelLibraryError

ROOT = Path(__file__).resolve().parents[2]
# The variables are set behind the import: the package checks them by itself when it is imported.
PROBE = """
import json, os, sys
from ops.tests.native import Native, NativeError, native_path, tensor, empty
os.environ.update(json.loads(sys.argv[1]))
library = Native(native_path())
try:
    library.call("silu", tensor([1.0], "float32"), empty((1,), "float32"))
    print(library.control.isa_name(), library.control.num_threads())
except NativeError as error:
    print("error:", error)
"""


VARIABLES = ("VLLM_MS_CPU_ISA", "VLLM_MS_NUM_THREADS")


def probe(code: str = "", **environment: str) -> str:
    """Output of a fresh process that runs `code`, then one kernel under these settings alone."""
    inherited = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    result = subprocess.run(
        [sys.executable, "-c", code + PROBE, json.dumps(environment)],
        env={**inherited, "VMO_TEST_LIBRARY": str(native_path())},
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return result.stdout.strip()


@pytest.mark.parametrize("name", ISA_NAMES)
def test_environment_forces_a_level(library: Native, name: str) -> None:
    output = probe(VLLM_MS_CPU_ISA=name, VLLM_MS_NUM_THREADS="3")
    if library.control.isa_supported(name):
        assert output == f"{name} 3"
    else:
        assert f'VLLM_MS_CPU_ISA asks for instruction set "{name}"' in output


def test_unknown_level_in_environment() -> None:
    output = probe(VLLM_MS_CPU_ISA="sse9")
    assert 'VLLM_MS_CPU_ISA names the unknown instruction set "sse9"; expected generic' in output


@pytest.mark.parametrize("value", ["0", "two", "-1", "3x"])
def test_bad_thread_count_in_environment(value: str) -> None:
    assert f'VLLM_MS_NUM_THREADS is "{value}"; expected a number from 1 to' in probe(
        VLLM_MS_NUM_THREADS=value
    )


def test_default_threads_follow_the_affinity() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    assert probe(code).split()[-1] == "1"


def test_best_level_is_the_default(library: Native) -> None:
    best = [name for name in ISA_NAMES if library.control.isa_supported(name)][-1]
    assert probe().split()[0] == best


def test_set_isa_refuses_unknown_names(library: Native) -> None:
    before = library.control.isa_name()
    with pytest.raises(KernelLibraryError, match='unknown instruction set "mmx"'):
        library.control.set_isa("mmx")
    assert library.control.isa_name() == before


def test_set_num_threads_refuses_zero(library: Native) -> None:
    with pytest.raises(KernelLibraryError, match="got 0 threads; expected at least 1"):
        library.control.set_num_threads(0)


def test_library_has_no_mindspore_or_python_dependency() -> None:
    output = subprocess.run(
        ["readelf", "-d", str(native_path())], capture_output=True, text=True, check=True
    ).stdout
    needed = [line.split("[")[1].rstrip("]") for line in output.splitlines() if "NEEDED" in line]
    assert {name.split(".so")[0] for name in needed} <= {
        "libstdc++", "libm", "libgcc_s", "libc", "libpthread",
        "ld-linux-x86-64", "ld-linux-aarch64",
    }  # fmt: skip
