# SPDX-License-Identifier: Apache-2.0
"""The doctor: a healthy report on this machine, and one fix per kind of damage."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from vllm_mindspore.cli import doctor, main
from vllm_mindspore.device.kernel_library import ISA_NAMES, KernelLibrary, library_path

RunPython = Callable[..., subprocess.CompletedProcess[str]]
DOCTOR = "from vllm_mindspore.cli import main; raise SystemExit(main.main(['doctor']))"


def test_this_installation_is_healthy(capfd: pytest.CaptureFixture[str]) -> None:
    assert main.main(["doctor"]) == 0
    output = capfd.readouterr().out
    for name in ("vllm-mindspore", "python", "vllm", "torch", "mindspore", "kernel test", "memory"):
        assert f"ok       {name} " in output
    assert "instruction set" in output
    assert output.rstrip().endswith("Nothing is missing.")


def test_broken_installation_is_exit_code_1_with_the_fix(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = doctor.Finding("kernel library", "absent", "make ops")
    monkeypatch.setattr(doctor, "findings", lambda: iter([broken]))
    assert main.main(["doctor"]) == 1
    assert "MISSING  kernel library" in (output := capfd.readouterr().out)
    assert "kernel library: make ops" in output


def test_missing_package_is_told_how_to_install() -> None:
    finding = doctor._package(Requirement("no-such-package-of-ours>=1"))
    assert finding.value == "not installed, needed >=1"
    assert finding.fix == "pip install 'no-such-package-of-ours>=1'"


def test_wrong_vllm_is_told_the_build_that_was_proven() -> None:
    finding = doctor._package(Requirement("vllm==0.1.0"))
    assert finding.value == "0.32.0, needed ==0.1.0"
    assert "VLLM_TARGET_DEVICE=empty" in finding.fix
    assert "vllm==0.1.0" in finding.fix


def test_cpu_features_in_the_order_of_the_paths(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx512f avx2 amx_tile\nbugs\t: none\n")
    assert doctor.cpu_features(cpuinfo) == ["avx2", "avx512f", "amx_tile"]


def test_cpu_without_those_features(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    assert doctor.cpu_features(cpuinfo) == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("VLLM_MS_NUM_THREADS", "many", "VLLM_MS_NUM_THREADS='many': expected a whole number"),
        ("VLLM_MS_CPU_ISA", "sse9", "VLLM_MS_CPU_ISA='sse9': unknown instruction set"),
        ("VLLM_MS_MODEL_BACKEND", "MindFormers", "not part of this release"),
        ("MINDFORMERS_MODEL_CONFIG", "a.yaml", "MINDFORMERS_MODEL_CONFIG is set, but"),
    ],
)
def test_wrong_variable_is_a_finding(
    run_python: RunPython, name: str, value: str, said: str
) -> None:
    result = run_python(DOCTOR, env={name: value}, check=False)
    assert result.returncode == 1
    first, *_ = result.stdout.splitlines()
    assert first.startswith("MISSING  variables ")
    assert said in first
    assert "  variables: unset or correct it" in result.stdout
    assert "Nothing is missing" not in result.stdout
    assert "Traceback" not in result.stderr


def test_instruction_set_that_this_cpu_lacks_is_told_to_be_unset(run_python: RunPython) -> None:
    library = KernelLibrary(library_path())
    lacking = [name for name in ISA_NAMES if not library.isa_supported(name)]
    if not lacking:
        pytest.skip("this CPU has every instruction set")
    result = run_python(DOCTOR, env={"VLLM_MS_CPU_ISA": lacking[-1]}, check=False)
    assert result.returncode == 1
    assert "MISSING  instruction set" in result.stdout
    assert "instruction set: unset VLLM_MS_CPU_ISA" in result.stdout


def test_kernel_test_that_does_not_end_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_SMOKE_SECONDS", 0.01)
    finding = doctor._smoke()
    assert finding.value == "not finished after 0.01 s"
    assert finding.fix
