# SPDX-License-Identifier: Apache-2.0
"""What is built and shipped: wheel, source distribution, entry points, pinned versions."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

from vllm_mindspore import __version__

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = "vllm_mindspore/lib/libvllm_mindspore_ops.so"
BUILD = "from setuptools import build_meta as b\nb.build_wheel('dist')\nb.build_sdist('dist')\n"
NOT_COPIED = (".git", ".venv", "build", "dist", "*.egg-info", "*.so", "__pycache__")


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=900, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a wheel and a source distribution built from a clean copy of the tree."""
    source = tmp_path_factory.mktemp("source") / "tree"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_COPIED))
    run(sys.executable, "-c", BUILD, folder=source)
    return source / "dist"


@pytest.mark.full
def test_wheel_fits_every_python_3_of_this_platform(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    name, version, python, abi, platform = wheel.stem.split("-")
    assert (name, version) == ("vllm_mindspore", __version__)
    assert (python, abi) == ("py3", "none")
    assert platform == f"linux_{os.uname().machine}"


@pytest.mark.full
def test_wheel_holds_library_entry_points_and_licence(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = message_from_string(
            archive.read(f"vllm_mindspore-{__version__}.dist-info/METADATA").decode()
        )
    assert LIBRARY in names
    assert any(name.endswith("source_tree-0.dist-info/entry_points.txt") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "ops/", "benchmarks/"))]
    assert "vllm==0.32.0" in metadata.get_all("Requires-Dist")
    assert metadata["Version"] == __version__


@pytest.mark.full
def test_source_distribution_builds_into_an_environment_that_has_the_stack(
    distributions: Path, tmp_path: Path
) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"ops/CMakeLists.txt", "setup.py", "README.md", "LICENSE"} <= names
    assert not [name for name in names if name.endswith(".so")]
    target = tmp_path / "target"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--no-deps", "--no-build-isolation", "--target", target, sdist, folder=tmp_path)
    assert (target / LIBRARY).is_file()


def test_missing_build_tool_is_an_error_with_the_command(tmp_path: Path) -> None:
    """`setup.tool` looks beside the interpreter and on PATH, nowhere else."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not _is_setup_call(node)]
    namespace: dict[str, object] = {"__file__": str(ROOT / "setup.py"), "__name__": "setup_module"}
    exec(compile(tree, "setup.py", "exec"), namespace)
    with pytest.raises(RuntimeError, match=r"no-such-tool is needed.*pip install no-such-tool"):
        namespace["tool"]("no-such-tool")


def _is_setup_call(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and ast.unparse(node).startswith("setup(")


def test_entry_points_have_one_source() -> None:
    source = ROOT / "vllm_mindspore" / "source_tree"
    (described,) = source.glob("*.dist-info/entry_points.txt")
    assert "vllm_mindspore.cli.main:entry" in described.read_text(encoding="utf-8")
    assert "cli.main" not in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "cli.main" not in (ROOT / "setup.py").read_text(encoding="utf-8")


def test_this_environment_holds_the_verified_versions() -> None:
    run(sys.executable, ROOT / "requirements" / "verify.py", folder=ROOT)


def test_constraints_name_no_place() -> None:
    lines = (ROOT / "requirements" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(line.startswith("#") or line.count("==") == 1 for line in lines)
    assert not [line for line in lines if "/" in line or "+" in line.partition("==")[2]]


def test_set_up_names_the_missing_python_and_the_command(tmp_path: Path) -> None:
    result = subprocess.run(
        [ROOT / ".ci" / "setup", tmp_path / "venv", "no-such-python"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "no-such-python is missing" in result.stderr
    assert "apt-get install python3.11" in result.stderr
    assert not (tmp_path / "venv").exists()


def test_set_up_takes_an_environment_that_holds_the_stack(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", venv)
    (venv / "lib").symlink_to(Path(sys.prefix) / "lib")
    for _ in range(2):  # the second time the stamp answers
        assert run(ROOT / ".ci" / "setup", venv, sys.executable, folder=ROOT).stdout == ""
    assert (venv / ".stack-stamp").is_file()


def test_help_is_the_default_target() -> None:
    printed = run("make", folder=ROOT).stdout
    for target in ("demo", "test", "test-full", "lint", "bench", "ops", "wheel", "clean", "setup"):
        assert f"make {target} " in printed
