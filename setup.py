# SPDX-License-Identifier: Apache-2.0
"""Builds the kernel library with CMake and packs it; other metadata is in pyproject.toml."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
OPS = ROOT / "ops"
# One list of entry points, used here and by source trees that are not installed.
ENTRY_POINTS = (
    ROOT / "vllm_mindspore/source_tree/vllm_mindspore_source_tree-0.dist-info/entry_points.txt"
)


def tool(name: str) -> str:
    """Path of a build tool: beside this Python (a venv's bin) or on PATH.

    Raises:
        RuntimeError: it is in neither place; says how to install it.
    """
    places = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    found = shutil.which(name, path=places)
    if found is None:
        raise RuntimeError(
            f"{name} is needed to build the kernel library and was found neither in "
            f"{sysconfig.get_path('scripts')} nor on PATH. Install it: "
            f"{sys.executable} -m pip install {name}"
        )
    return found


def entry_points() -> dict[str, list[str]]:
    """Group to lines "name = module:function"."""
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.read_string(ENTRY_POINTS.read_text(encoding="utf-8"))
    return {
        group: [f"{name} = {target}" for name, target in parser.items(group)]
        for group in parser.sections()
    }


class KernelLibrary(Extension):
    """The plain C++ kernel library: loaded by path, no Python module."""

    def __init__(self) -> None:
        super().__init__("vllm_mindspore.lib.libvllm_mindspore_ops", sources=[])


class BuildKernelLibrary(build_ext):
    """Runs CMake once; the library lands in the wheel, or in the source tree when editable."""

    def get_ext_filename(self, fullname: str) -> str:
        """The same file name for every Python: there is no Python ABI in it."""
        return fullname.replace(".", os.sep) + ".so"

    def build_extension(self, ext: Extension) -> None:
        """Configure and build `ops/` for this machine's architecture."""
        # `make ops` uses the first folder: an editable installation finds its work done.
        in_place = self.inplace or self.editable_mode
        build = ROOT / "build" / "ops" if in_place else Path(self.build_temp).resolve() / "ops"
        output = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        subprocess.run(
            [
                tool("cmake"),
                "-S",
                str(OPS),
                "-B",
                str(build),
                "-G",
                "Ninja",
                f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
                "-DCMAKE_BUILD_TYPE=Release",
                f"-DVMO_OUTPUT_DIR={output}",
                f"-DVMO_VERSION={self.distribution.get_version()}",
            ],
            check=True,
        )
        subprocess.run([tool("cmake"), "--build", str(build)], check=True)


class PlatformWheel(bdist_wheel):
    """Wheel for any Python 3 of one platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """py3-none-<platform>: native code, but none that depends on the Python version."""
        return "py3", "none", super().get_tag()[2]


class BinaryDistribution(Distribution):
    """Has native code even though no Python extension module is listed."""

    def has_ext_modules(self) -> bool:
        """True, so that the wheel is not pure."""
        return True


setup(
    ext_modules=[KernelLibrary()] if (OPS / "CMakeLists.txt").exists() else [],
    cmdclass={"build_ext": BuildKernelLibrary, "bdist_wheel": PlatformWheel},
    distclass=BinaryDistribution,
    entry_points=entry_points(),
)
