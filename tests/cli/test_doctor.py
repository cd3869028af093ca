# SPDX-License-Identifier: Apache-2.0
"""The doctor: a healthy report on this machine, and one fix per kind of damage."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from vllm_mindspore.cli import doctor, main


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
