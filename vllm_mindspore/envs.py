# SPDX-License-Identifier: Apache-2.0
"""Every environment variable this package reads or sets: the only module that touches os.environ.

`docs/environment_variables.md` is this module printed by `make docs`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")

MODEL_BACKENDS = ("Native",)
DEVICES = ("cpu", "ascend")
CPU_ISAS = ("generic", "avx2", "avx512", "avx512_bf16", "amx")


@dataclass(frozen=True)
class Variable(Generic[T]):
    """One variable that users may set.

    Attributes:
        name: name in the environment.
        default: value when it is unset or empty.
        parse: text to value; raises ValueError saying what is accepted.
        values: the accepted values, for the documentation.
        meaning: what it does, one or two sentences.
    """

    name: str
    default: T
    parse: Callable[[str], T]
    values: str
    meaning: str

    def get(self) -> T:
        """The parsed value, or the default when unset or empty.

        Raises:
            ValueError: the value is not accepted; the message names variable, value and choices.
        """
        text = os.environ.get(self.name, "").strip()
        if not text:
            return self.default
        try:
            return self.parse(text)
        except ValueError as error:
            raise ValueError(f"{self.name}={text!r}: {error}") from None

    def is_set(self) -> bool:
        """Whether the environment holds a non-empty value."""
        return bool(os.environ.get(self.name, "").strip())


@dataclass(frozen=True)
class Default:
    """A variable of another library that we set when the user has not."""

    name: str
    value: str
    reason: str


def _parse_model_backend(text: str) -> str:
    for backend in MODEL_BACKENDS:
        if text.lower() == backend.lower():
            return backend
    if text.lower() == "mindformers":
        raise ValueError(
            "the MindSpore Transformers backend is not part of this release. "
            "Unset the variable or set it to Native, which serves Hugging Face folders directly."
        )
    raise ValueError(f"unknown model backend. Choices (any case): {', '.join(MODEL_BACKENDS)}.")


def _parse_isa(text: str) -> str:
    if text.lower() not in CPU_ISAS:
        raise ValueError(f"unknown instruction set. Choices: {', '.join(CPU_ISAS)}.")
    return text.lower()


def _parse_device(text: str) -> str:
    if text.lower() not in DEVICES:
        raise ValueError(f"unknown device. Choices (any case): {', '.join(DEVICES)}.")
    return text.lower()


def _parse_threads(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("expected a whole number of threads, 1 or more.")
    return int(text)


def _parse_gigabytes(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = float("nan")
    if not 0 < size < float("inf"):
        raise ValueError("expected a positive number of GiB.")
    return size


def _parse_flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("expected 0 or 1.")
    return text == "1"


MODEL_BACKEND = Variable(
    "VLLM_MS_MODEL_BACKEND",
    "Native",
    _parse_model_backend,
    "Native (any case)",
    "Which model implementation serves the request. `MindFormers` is recognised and refused: "
    "it is not part of this release.",
)
OLD_MODEL_BACKEND = Variable(
    "vLLM_MODEL_BACKEND",
    "Native",
    _parse_model_backend,
    "as VLLM_MS_MODEL_BACKEND",
    "Old name of VLLM_MS_MODEL_BACKEND. Still read, with a deprecation warning; the new name wins.",
)
CPU_ISA = Variable[str | None](
    "VLLM_MS_CPU_ISA",
    None,
    _parse_isa,
    ", ".join(CPU_ISAS),
    "Forces the instruction set of the CPU kernels. Unset: the best one this CPU has. "
    "Forcing one that the CPU lacks is an error.",
)
NUM_THREADS = Variable[int | None](
    "VLLM_MS_NUM_THREADS",
    None,
    _parse_threads,
    "1 or more",
    "Threads of the kernel library in each worker. Unset: usable cores divided by the workers "
    "of this machine.",
)
KV_CACHE_MAX_GB = Variable(
    "VLLM_MS_KV_CACHE_MAX_GB",
    4.0,
    _parse_gigabytes,
    "GiB, more than 0",
    "Upper bound of the key-value cache that is derived from `--gpu-memory-utilization`. "
    "`--kv-cache-memory-bytes` is not bounded by it, nor are NPUs unless it is set.",
)
FUSED_KERNELS = Variable(
    "VLLM_MS_FUSED_KERNELS",
    True,
    _parse_flag,
    "0, 1",
    "1: fused CPU nodes where they exist. 0: the chain of Ascend primitives, as an NPU runs it.",
)
DEVICE = Variable(
    "VLLM_MS_DEVICE",
    "cpu",
    _parse_device,
    "cpu, ascend",
    "What graphs run on. `ascend`: one NPU per rank, the chain of Ascend primitives, HCCL between "
    "ranks; it has not run on hardware yet.",
)
SPARSE_DECODE = Variable(
    "VLLM_MS_SPARSE_DECODE",
    False,
    _parse_flag,
    "0, 1",
    "1: compressed weights (W8A8SC) in our coding are decoded to int8 when they are loaded, and "
    "take its memory: for devices that cannot compute with them, and for comparison.",
)
VARIABLES: tuple[Variable[Any], ...] = (
    MODEL_BACKEND,
    OLD_MODEL_BACKEND,
    CPU_ISA,
    NUM_THREADS,
    KV_CACHE_MAX_GB,
    DEVICE,
    FUSED_KERNELS,
    SPARSE_DECODE,
)

REFUSED = {
    "MINDFORMERS_MODEL_CONFIG": "it is no longer used: the model is described by the config.json "
    "of its folder. Unset it.",
}

# Set in every process, on every device.
GENERAL_DEFAULTS = (
    Default("GLOG_v", "3", "MindSpore logs errors only; its warnings bury the log of vLLM"),
    Default(
        "MS_JIT_MODULES",
        "vllm_mindspore",
        "the graph compiler takes code in site-packages for third-party code unless named here",
    ),
    Default(
        "VLLM_USE_V2_MODEL_RUNNER",
        "0",
        "our runner speaks the first protocol; vLLM would switch by itself where Triton is active",
    ),
)
# Set where the Ray executor joins or starts a cluster.
RAY_DEFAULTS = (
    Default("RAY_USAGE_STATS_ENABLED", "0", "Ray reports nothing; vLLM sets it too, but later"),
)
# Set where VLLM_MS_DEVICE=ascend chooses NPUs.
ASCEND_DEFAULTS = (
    Default("MS_ENABLE_LCCL", "off", "collectives go through HCCL"),
    Default("HCCL_EXEC_TIMEOUT", "7200", "seconds; a cold graph compilation outlasts the default"),
    Default("HCCL_OP_EXPANSION_MODE", "AIV", "small collectives are cheaper on the vector cores"),
    Default("HCCL_DETERMINISTIC", "false", "reduction order may vary, in exchange for speed"),
    Default("LCCL_DETERMINISTIC", "0", "reduction order may vary, in exchange for speed"),
    Default("MS_ENABLE_INTERNAL_BOOST", "on", "fused inference kernels"),
    Default("CUSTOM_MATMUL_SHUFFLE", "on", "matmul tiles are shuffled for cache reuse"),
    Default("ASCEND_LAUNCH_BLOCKING", "0", "kernels are launched asynchronously"),
    Default("TE_PARALLEL_COMPILER", "0", "no compiler processes beside the workers"),
    Default("MS_ALLOC_CONF", "enable_vmm:true", "virtual memory pools fragment less"),
)


def model_backend() -> str:
    """The chosen model backend, one of MODEL_BACKENDS; the old name is read with a warning.

    Raises:
        ValueError: the name is unknown, or the backend is not part of this release.
    """
    if OLD_MODEL_BACKEND.is_set():
        warnings.warn(
            f"{OLD_MODEL_BACKEND.name} is deprecated: use {MODEL_BACKEND.name}.",
            FutureWarning,  # the category Python shows to users
            stacklevel=2,
        )
        if not MODEL_BACKEND.is_set():
            return OLD_MODEL_BACKEND.get()
    return MODEL_BACKEND.get()


def asks_for_npus() -> bool:
    """Whether the user wrote so; unlike `uses_npus` it leaves wrong values to `check`."""
    return text(DEVICE.name).lower() == "ascend"


def uses_npus() -> bool:
    """Whether graphs run on NPUs.

    Raises:
        ValueError: the variable names another device.
    """
    return DEVICE.get() == "ascend"


def check() -> None:
    """Parse every variable, so that a wrong value is an error at start-up and not later.

    Raises:
        ValueError: a value is not accepted, or a variable that is no longer used is set.
    """
    for name, reason in REFUSED.items():
        if os.environ.get(name):
            raise ValueError(f"{name} is set, but {reason}")
    model_backend()
    for variable in VARIABLES:
        if variable is not OLD_MODEL_BACKEND:
            variable.get()


def apply_defaults(*, ascend: bool) -> None:
    """Set the defaults of other libraries, leaving alone what the user has set."""
    for default in GENERAL_DEFAULTS + (ASCEND_DEFAULTS if ascend else ()):
        os.environ.setdefault(default.name, default.value)


def apply_ray_defaults() -> None:
    """Set the defaults of Ray, leaving alone what the user has set."""
    for default in RAY_DEFAULTS:
        os.environ.setdefault(default.name, default.value)


def text(name: str) -> str:
    """What the environment holds for a variable of vLLM's; empty when it is unset."""
    return os.environ.get(name, "").strip()


def drop_target_device() -> None:
    """Remove VLLM_TARGET_DEVICE: the value `cpu` makes vLLM skip every platform plugin."""
    os.environ.pop("VLLM_TARGET_DEVICE", None)


def allowed_plugins() -> list[str] | None:
    """Names listed in VLLM_PLUGINS, or None when all plugins are allowed."""
    text = os.environ.get("VLLM_PLUGINS")
    return None if text is None else [name.strip() for name in text.split(",")]


def prepend_python_path(folders: Iterable[Path]) -> None:
    """Put folders in front of PYTHONPATH, so that spawned children find them."""
    old = os.environ.get("PYTHONPATH", "")
    known = old.split(os.pathsep) if old else []
    new = [str(folder) for folder in folders if str(folder) not in known]
    os.environ["PYTHONPATH"] = os.pathsep.join(new + known)


def engine_in_own_process() -> bool:
    """Whether LLM() puts the engine into a child process (VLLM_ENABLE_V1_MULTIPROCESSING)."""
    return os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING", "1") != "0"


def worker_start_method() -> str:
    """How vLLM starts child processes: `fork` (its default for LLM()) or `spawn`."""
    return os.environ.get("VLLM_WORKER_MULTIPROC_METHOD", "fork")


def force_spawn() -> None:
    """Make vLLM start its child processes with spawn."""
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"


def set_variables(values: Mapping[str, str]) -> None:
    """Sets them in this process, whatever they are."""
    os.environ.update(values)


def of_child(values: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child process: this one's, with `values` in place of its own."""
    return {**os.environ, **values}


def set_op_plugin(library: Path) -> None:
    """Point MindSpore at our kernel library; must precede the first MindSpore op of the process.

    Raises:
        ValueError: MS_OP_PLUGIN_PATH names another library. MindSpore loads one per process.
    """
    current = os.environ.get("MS_OP_PLUGIN_PATH", "")
    if current and Path(current) != library:
        raise ValueError(
            f"MS_OP_PLUGIN_PATH={current} names another kernel library than ours ({library}), and "
            "MindSpore loads only one. Unset MS_OP_PLUGIN_PATH."
        )
    os.environ["MS_OP_PLUGIN_PATH"] = str(library)


def unknown_vllm_variables(known: Iterable[str]) -> list[str]:
    """Names that start with VLLM_ and are neither vLLM's (`known`) nor ours."""
    ours = {variable.name for variable in VARIABLES}
    return sorted(
        name
        for name in os.environ
        if name.startswith("VLLM_") and name not in known and name not in ours
    )


def reported() -> dict[str, str]:
    """The set variables that matter to this package, for `vllm-mindspore doctor`."""
    names = {item.name for item in VARIABLES} | set(REFUSED)
    names |= {item.name for item in (*GENERAL_DEFAULTS, *RAY_DEFAULTS, *ASCEND_DEFAULTS)}
    prefixes = ("VLLM_", "MS_", "OMP_", "MINDSPORE_", "ASCEND_", "HCCL_")
    return {k: v for k, v in sorted(os.environ.items()) if k in names or k.startswith(prefixes)}


def markdown() -> str:
    """The documentation page of this table."""
    lines = [
        "# Environment variables",
        "",
        "Generated from `vllm_mindspore/envs.py` by `make docs`; do not edit.",
        "",
        "## Variables of this package",
        "",
        "| Name | Values | Default | Meaning |",
        "|---|---|---|---|",
    ]
    for item in VARIABLES:
        default = "unset" if item.default is None else _printed(item.default)
        lines.append(f"| `{item.name}` | {item.values} | {default} | {item.meaning} |")
    lines += ["", "Set, these are an error:", ""]
    lines += [f"- `{name}`: {reason}" for name, reason in REFUSED.items()]
    lines += ["", "## Defaults we set for other libraries", "", "Only where you have not set them."]
    lines += _default_table("Always", GENERAL_DEFAULTS)
    lines += _default_table("Where the Ray executor runs", RAY_DEFAULTS)
    lines += _default_table("With `VLLM_MS_DEVICE=ascend`", ASCEND_DEFAULTS)
    lines += ["", "`VLLM_TARGET_DEVICE` is removed: its value `cpu` makes vLLM skip every plugin."]
    lines += ["`MS_OP_PLUGIN_PATH` is set to our kernel library; another value is an error."]
    return "\n".join(lines) + "\n"


def _printed(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _default_table(title: str, defaults: tuple[Default, ...]) -> list[str]:
    lines = ["", f"### {title}", "", "| Name | Value | Reason |", "|---|---|---|"]
    return lines + [f"| `{d.name}` | `{d.value}` | {d.reason} |" for d in defaults]
