# SPDX-License-Identifier: Apache-2.0
"""Which scheme each linear layer of a model has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from vllm_mindspore.quantization import kv_cache
from vllm_mindspore.quantization.description import (
    DYNAMIC,
    FLOAT,
    STATIC,
    WEIGHT_INT4,
    WEIGHT_INT8,
    Description,
    Tool,
)
from vllm_mindspore.quantization.schemes.base import Scheme
from vllm_mindspore.quantization.schemes.float_linear import Float
from vllm_mindspore.quantization.schemes.w4a16 import W4A16
from vllm_mindspore.quantization.schemes.w8a8 import W8A8
from vllm_mindspore.quantization.schemes.w8a8_dynamic import W8A8Dynamic
from vllm_mindspore.quantization.schemes.w8a16 import W8A16
from vllm_mindspore.quantization.schemes.weight_scales import Form


class Plan(Protocol):
    """Chooses schemes."""

    quantized: bool
    """Whether any layer is."""

    int8_cache: bool
    """Whether keys and values are cached as int8 codes."""

    summary: str
    """Its types, for logs; empty where nothing is quantized."""

    def scheme(self, names: Sequence[str]) -> Scheme:
        """That of linear layers which are computed together.

        Raises:
            ValueError: there is none for all of them.
        """


class FloatPlan:
    """Every layer is float."""

    quantized = False
    int8_cache = False
    summary = ""

    def scheme(self, names: Sequence[str]) -> Scheme:
        """Float."""
        return Float()


def _form(description: Description) -> Form:
    """Golden Stick stores scales of groups turned."""
    return Form(description.group_sizes(), turned=description.tool is Tool.GOLDEN_STICK)


_SCHEMES: dict[str, Callable[[Description], Scheme]] = {
    FLOAT: lambda _: Float(),
    STATIC: lambda description: W8A8(description.tool),
    DYNAMIC: lambda _: W8A8Dynamic(),
    WEIGHT_INT8: lambda description: W8A16(_form(description)),
    WEIGHT_INT4: lambda description: W4A16(_form(description)),
}


class DescribedPlan:
    """As a description file has it, by exact names."""

    quantized = True

    def __init__(self, description: Description) -> None:
        """Raises ValueError for tensors whose types do not fit together or are not supported."""
        self._file = description.file
        self.int8_cache = kv_cache.is_int8(description)
        self._types = description.module_types()
        kinds = Counter(self._types.values())
        found = [kind for kind, _ in kinds.most_common() if kind != FLOAT]
        self.summary = "/".join([*found, kv_cache.C8] if self.int8_cache else found)
        self._schemes = {kind: _SCHEMES[kind](description) for kind in kinds}

    def scheme(self, names: Sequence[str]) -> Scheme:
        """That of the type which the file gives all of `names`.

        Raises:
            ValueError: a name is not in the file, or the types differ.
        """
        types = {name: self._type(name) for name in names}
        first, *others = dict.fromkeys(types.values())
        if others:
            found = ", ".join(f"{name}: {kind}" for name, kind in types.items())
            raise ValueError(
                f"{self._file}: layers of one input have different types ({found}); they are "
                "computed together: quantize them alike"
            )
        return self._schemes[first]

    def _type(self, name: str) -> str:
        if name not in self._types:
            raise ValueError(
                f"{self._file} does not say what {name} is: expected an entry "
                f"{name}.weight; the file belongs to another model, or the tool that wrote it did "
                "not know this one"
            )
        return self._types[name]
