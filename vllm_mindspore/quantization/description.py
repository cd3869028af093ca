# SPDX-License-Identifier: Apache-2.0
"""The JSON file that Ascend tools write beside quantized weights: tensor name -> type.

Imports neither torch nor MindSpore: the front end reads it too.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FLOAT, STATIC, DYNAMIC = "FLOAT", "W8A8", "W8A8_DYNAMIC"
SPARSE = "W8A8S"
"""W8A8 whose weights are zero in many places: the same tensors, the same arithmetic."""
STATICS = (STATIC, SPARSE)
"""Types whose inputs have one scale and zero point."""
WEIGHT_INT8, WEIGHT_INT4 = "W8A16", "W4A16"
TYPES = (FLOAT, STATIC, SPARSE, DYNAMIC, WEIGHT_INT8, WEIGHT_INT4)
"""What layers may be here."""

HALF_ONLY = (WEIGHT_INT8, WEIGHT_INT4)
"""Types whose activations are bfloat16 or float16, as on an NPU."""

GROUP_SIZES = (64, 128, 256)
"""Elements along K that may share a scale."""


class Tool(enum.Enum):
    """Who wrote the checkpoint, by the name users give it."""

    GOLDEN_STICK = "golden-stick"
    MODELSLIM = "ascend"

    @property
    def writer(self) -> str:
        """Its own name."""
        return {Tool.GOLDEN_STICK: "Golden Stick", Tool.MODELSLIM: "ModelSlim"}[self]


# As vLLM compares them, in lower case. SmoothQuant is what either tool may have applied.
TOOLS = {
    "golden-stick": (Tool.GOLDEN_STICK,),
    "golden_stick": (Tool.GOLDEN_STICK,),
    "smoothquant": (Tool.GOLDEN_STICK, Tool.MODELSLIM),
    "ascend": (Tool.MODELSLIM,),
}
"""Value of --quantization -> the tools whose checkpoints it may stand for."""

# How the names of description files begin, and who writes them; ModelSlim may add the type.
STEMS = {
    "quantization_description": Tool.GOLDEN_STICK,
    "quant_model_description": Tool.MODELSLIM,
}
# What ModelSlim says about the whole model, beside the tensors.
_KEYS = (
    *("model_quant_type", "version", "group_size", "metadata", "optional"),
    *("kv_cache_type", "kv_quant_type", "fa_quant_type", "reduce_quant_type"),
)

C8, CACHE_KEYS = "C8", ("kv_cache_type", "kv_quant_type")
"""An int8 key/value cache, and what says so; the second is the older name."""

CACHE_SCALE, CACHE_OFFSET = "kv_cache_scale", "kv_cache_offset"
"""Last names of what an int8 key/value cache has (`kv_cache`)."""

FUSED = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "qkv_proj"),
    **dict.fromkeys(("gate_proj", "up_proj"), "gate_up_proj"),
}
"""Last name of a layer -> of what it is part of where layers are fused."""


@dataclass(frozen=True)
class Description:
    """One description file.

    Attributes:
        file: where it is.
        tool: who wrote it.
        types: tensor name -> type, as the file has them.
        keys: what it says about the whole model.
    """

    file: Path
    tool: Tool
    types: Mapping[str, str]
    keys: Mapping[str, object]

    @property
    def writer(self) -> str:
        """The tool's own name."""
        return self.tool.writer

    @property
    def names(self) -> list[str]:
        """What --quantization may be, the tool's own value first."""
        return sorted(
            (name for name, tools in TOOLS.items() if self.tool in tools),
            key=lambda name: name != self.tool.value,
        )

    def module_types(self) -> dict[str, str]:
        """Module name -> type of its tensors, those of an int8 cache aside: files label them with
        C8 or with a type of linear layers, whatever the projection they are named after has.

        Raises:
            ValueError: the tensors of one module have several types, or one that is not supported.
        """
        parts: dict[str, dict[str, str]] = {}
        for tensor, kind in self.types.items():
            module, _, part = tensor.rpartition(".")
            if part not in (CACHE_SCALE, CACHE_OFFSET):
                parts.setdefault(module, {})[part] = kind
        found = {module: self._one_type(module, kinds) for module, kinds in parts.items()}
        for module, kind in found.items():
            if kind not in TYPES:
                raise ValueError(
                    f"{self.file}: {module} has the type {kind!r:.40}; supported: "
                    f"{', '.join(TYPES)}"
                )
        return found

    def check(self, dtype: str) -> None:
        """Checks all types, and that they are computed in the model's dtype, such as "bfloat16".

        Raises:
            ValueError: one is not, or is not supported.
        """
        kinds = sorted(set(self.module_types().values()) & set(HALF_ONLY))
        if kinds:
            self.group_sizes()
        if kinds and dtype == "float32":
            raise ValueError(
                f"{self.file}: layers of type {', '.join(kinds)} are computed in bfloat16 or "
                "float16; found float32. Use --dtype bfloat16 or --dtype float16"
            )

    def group_sizes(self) -> tuple[int, ...]:
        """What groups of weights that are quantized alone may have: what the file says, or any.

        Raises:
            ValueError: the file says something else.
        """
        stated = self.keys.get("group_size", 0)
        if stated in (0, None):
            return GROUP_SIZES
        if stated not in GROUP_SIZES:
            raise ValueError(
                f"{self.file}: group_size: expected one of {', '.join(map(str, GROUP_SIZES))}, or "
                f"0 for a scale per output; found {stated!r:.40}"
            )
        return tuple(size for size in GROUP_SIZES if size == stated)

    @property
    def stated_group_size(self) -> int:
        """Elements that share a scale if the file says so, else 0."""
        stated = self.keys.get("group_size", 0)
        return stated if isinstance(stated, int) else 0

    def type_of(self, module: str) -> str:
        """That of linear layer `module` of the model.

        Raises:
            ValueError: the file does not name it, or `module_types` raises.
        """
        if module not in self._modules:
            raise self.unknown(module)
        return self._modules[module]

    @functools.cached_property
    def _modules(self) -> dict[str, str]:
        return self.module_types()

    def unknown(self, module: str) -> ValueError:
        """The error for a linear layer `module` of the model that the file does not name."""
        parent, _, last = module.rpartition(".")
        fused = f"{parent}.{FUSED.get(last, last)}"
        if f"{fused}.weight" in self.types and fused != module:
            why = (
                f"but names {fused}: {self.writer} wrote it for a model with fused layers. Write "
                "the checkpoint with the names of the Hugging Face model"
            )
        else:
            why = (
                f"expected an entry {module}.weight; the file belongs to another model, or "
                f"{self.writer} did not know this one"
            )
        return ValueError(f"{self.file} does not say what {module} is: {why}")

    def _one_type(self, module: str, parts: Mapping[str, str]) -> str:
        # Golden Stick labels every bias of a dynamic layer W4A8_DYNAMIC: the weight decides.
        kinds = {kind for part, kind in parts.items() if part != "bias"} or set(parts.values())
        if len(kinds) == 1:
            return kinds.pop()
        raise ValueError(
            f"{self.file}: the tensors of {module} have several types, "
            f"{', '.join(f'{part}: {kind}' for part, kind in sorted(parts.items()))}; expected one"
        )


def one_type(file: Path, types: Mapping[str, str]) -> str:
    """The type of linear layers that are computed together; `types` of their names, by `file`.

    Raises:
        ValueError: they have several.
    """
    first, *others = dict.fromkeys(types.values())
    if others:
        found = ", ".join(f"{name}: {kind}" for name, kind in types.items())
        raise ValueError(
            f"{file}: layers of one input have different types ({found}); they are computed "
            "together: quantize them alike"
        )
    return first


def parse(file: Path, content: dict[str, Any]) -> Description:
    """The description that JSON object `content` of `file` is.

    Raises:
        ValueError: it is none; names the file, what was expected and found.
    """
    keys = {name: value for name, value in content.items() if name in _KEYS}
    types = {name: value for name, value in content.items() if name not in _KEYS}
    for tensor, kind in types.items():
        if not isinstance(kind, str):
            raise ValueError(
                f"{file}: {tensor!r:.200}: expected the name of a type, found "
                f"{type(kind).__name__} {kind!r:.80}"
            )
    (tool,) = (tool for stem, tool in STEMS.items() if file.name.startswith(stem))
    return Description(file, tool, types, keys)
