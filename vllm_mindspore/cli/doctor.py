# SPDX-License-Identifier: Apache-2.0
"""`vllm-mindspore doctor`: what is installed, what the machine has, what is missing."""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from pathlib import Path

from packaging.requirements import Requirement

import vllm_mindspore
from vllm_mindspore import envs
from vllm_mindspore.device.kernel_library import (
    ISA_NAMES,
    KernelLibrary,
    KernelLibraryError,
    library_path,
)
from vllm_mindspore.device.memory import available_memory
from vllm_mindspore.device.threads import threads_per_rank, usable_cores

NAME = "doctor"
HELP = "print versions, device, CPU features, kernel library, and what is missing"

_SMOKE_SECONDS = 300
# What the kernel paths are made of, in /proc/cpuinfo's spelling.
_CPU_FEATURES = (
    *("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq"),
    *("avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"),
)
_INSTALL_VLLM = (
    "VLLM_TARGET_DEVICE=empty VLLM_VERSION_OVERRIDE={version} "
    "pip install --no-build-isolation --no-binary vllm vllm=={version}"
)


@dataclass(frozen=True)
class Finding:
    """One line of the report. `fix` is set when something needed is missing: how to get it."""

    name: str
    value: str
    fix: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options: there are none."""


def run(args: argparse.Namespace) -> int:
    """Print the report; returns 1 when something needed is missing."""
    missing = []
    for finding in findings():
        print(f"{'MISSING' if finding.fix else 'ok':<8} {finding.name:<18} {finding.value}")
        sys.stdout.flush()
        if finding.fix:
            missing.append(finding)
    print("\nNothing is missing." if not missing else "\nTo do:")
    for finding in missing:
        print(f"  {finding.name}: {finding.fix}")
    return 1 if missing else 0


def findings() -> Iterator[Finding]:
    """All lines of the report, cheap ones first."""
    wrong_variables = list(_variables())
    yield from wrong_variables
    yield Finding("vllm-mindspore", vllm_mindspore.__version__)
    yield _python()
    yield from _packages()
    yield _openmp()
    yield from _entry_points()
    yield from _machine()
    yield from _environment()
    if not wrong_variables:  # the library reads them too, and would say the same again
        yield from _kernel_library()


def _variables() -> Iterator[Finding]:
    """First: what follows reads them, and would fail on a wrong value."""
    try:
        envs.check()
    except ValueError as error:
        yield Finding(
            "variables", str(error), "unset or correct it (docs/environment_variables.md)"
        )


def _python() -> Finding:
    found = platform.python_version()
    fix = "" if sys.version_info[:2] == (3, 11) else "install Python 3.11; MindSpore 2.10 needs it"
    return Finding("python", found, fix)


def _packages() -> Iterator[Finding]:
    """The packages this one declares, with the versions it declares."""
    try:
        declared = requires("vllm-mindspore") or []
    except PackageNotFoundError:
        yield Finding("installation", "runs from a source tree that is not installed")
        return
    for requirement in map(Requirement, declared):
        yield _package(requirement)


def _package(requirement: Requirement) -> Finding:
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        found = "not installed"
    if found != "not installed" and requirement.specifier.contains(found, prereleases=True):
        return Finding(requirement.name, found)
    fix = f"pip install '{requirement}'"
    if requirement.name == "vllm":
        fix = _INSTALL_VLLM.format(version=str(requirement.specifier).removeprefix("=="))
    return Finding(requirement.name, f"{found}, needed {requirement.specifier or 'any'}", fix)


def _openmp() -> Finding:
    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError as error:
        return Finding("libgomp", str(error), "sudo apt-get install libgomp1")
    return Finding("libgomp", "libgomp.so.1")


def _entry_points() -> Iterator[Finding]:
    for group in ("vllm.platform_plugins", "vllm.general_plugins"):
        found = [point.name for point in entry_points(group=group) if "mindspore" in point.name]
        fix = "" if found else "pip install --no-deps --no-build-isolation ."
        yield Finding(group.removeprefix("vllm."), ", ".join(found) or "none of ours", fix)


def _machine() -> Iterator[Finding]:
    ascend = sorted(Path("/dev").glob("davinci[0-9]*"))
    yield Finding("device", f"CPU, {platform.machine()}")
    if ascend:
        yield Finding(
            "ascend", f"{len(ascend)} NPU found, computed with only where VLLM_MS_DEVICE=ascend"
        )
    yield Finding("cpu features", " ".join(cpu_features()) or "none of those with own kernels")
    yield _cores()
    yield Finding(
        "memory", f"{available_memory() / 2**30:.1f} GiB available, within control-group limits"
    )


def _cores() -> Finding:
    try:
        threads = f"{threads_per_rank(1)} kernel threads"
    except ValueError as error:
        threads = str(error)  # its fix is told among the variables
    return Finding("cores", f"{usable_cores()} usable, {threads}")


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """The features of this CPU that select kernel paths."""
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("flags"):
            present = set(line.split(":", 1)[1].split())
            return [feature for feature in _CPU_FEATURES if feature in present]
    return []


def _environment() -> Iterator[Finding]:
    for name, value in envs.reported().items():
        yield Finding("environment", f"{name}={value}")


def _kernel_library() -> Iterator[Finding]:
    try:
        library = KernelLibrary(library_path())
    except (KernelLibraryError, OSError) as error:
        yield Finding("kernel library", str(error), "make ops, or pip install .")
        return
    yield Finding("kernel library", f"{library.version()}, {library.path}")
    instruction_set = _instruction_set(library)
    yield instruction_set
    if not instruction_set.fix:
        yield _smoke()


def _instruction_set(library: KernelLibrary) -> Finding:
    able = ", ".join(name for name in ISA_NAMES if library.isa_supported(name))
    try:
        best = library.isa_name()
    except KernelLibraryError as error:
        asked_threads = envs.NUM_THREADS.name in str(error)
        fix = f"unset {(envs.NUM_THREADS if asked_threads else envs.CPU_ISA).name}"
        return Finding("instruction set", f"{error} (this CPU can run {able})", fix)
    return Finding("instruction set", f"{best} in use; this CPU can run {able}")


def _smoke() -> Finding:
    """Run one of our kernels through MindSpore, in a process of its own."""
    repeat = "make ops; python -m vllm_mindspore.device.smoke"
    try:
        result = subprocess.run(
            [sys.executable, "-m", "vllm_mindspore.device.smoke"],
            capture_output=True,
            text=True,
            timeout=_SMOKE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding("kernel test", f"not finished after {_SMOKE_SECONDS} s", repeat)
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or ["no message"]
        return Finding("kernel test", lines[-1], repeat)
    report = json.loads(result.stdout.splitlines()[-1])
    return Finding("kernel test", f"RmsNorm through MindSpore, error {report['error']:.1e}")
