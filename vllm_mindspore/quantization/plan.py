# SPDX-License-Identifier: Apache-2.0
"""Which scheme each linear layer of a model has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from vllm_mindspore.device.soc import Device
from vllm_mindspore.quantization import kv_cache
from vllm_mindspore.quantization.compressed_tensors import CompressedTensors
from vllm_mindspore.quantization.description import (
    C8,
    DYNAMIC,
    FLOAT,
    SPARSE,
    STATIC,
    WEIGHT_INT4,
    WEIGHT_INT8,
    Description,
    Tool,
    one_type,
)
from vllm_mindspore.quantization.schemes.base import Scheme
from vllm_mindspore.quantization.schemes.compressed_dynamic import CompressedDynamic
from vllm_mindspore.quantization.schemes.compressed_static import CompressedStatic
from vllm_mindspore.quantization.schemes.float_linear import Float
from vllm_mindspore.quantization.schemes.w4a16 import W4A16
from vllm_mindspore.quantization.schemes.w8a8 import W8A8
from vllm_mindspore.quantization.schemes.w8a8_dynamic import W8A8Dynamic
from vllm_mindspore.quantization.schemes.w8a16 import W8A16
from vllm_mindspore.quantization.schemes.weight_scales import Form
from vllm_mindspore.quantization.sharding import Rank
from vllm_mindspore.quantization.sparse_description import SparseDescription
from vllm_mindspore.quantization.sparse_plan import SparsePlan


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
    """Golden Stick stores scales of groups turned, ModelSlim the offsets that codes have."""
    golden_stick = description.tool is Tool.GOLDEN_STICK
    return Form(description.group_sizes(), turned=golden_stick, subtracted=not golden_stick)


_SCHEMES: dict[str, Callable[[Description], Scheme]] = {
    FLOAT: lambda _: Float(),
    STATIC: lambda description: W8A8(description.tool),
    SPARSE: lambda description: W8A8(description.tool),
    DYNAMIC: lambda _: W8A8Dynamic(),
    WEIGHT_INT8: lambda description: W8A16(_form(description)),
    WEIGHT_INT4: lambda description: W4A16(_form(description), description.tool),
}


class DescribedPlan:
    """As a description file has it, by exact names."""

    quantized = True

    def __init__(self, description: Description) -> None:
        """Raises ValueError for tensors whose types do not fit together or are not supported."""
        self._description = description
        self.int8_cache = kv_cache.is_int8(description)
        kinds = Counter(description.module_types().values())
        found = [kind for kind, _ in kinds.most_common() if kind != FLOAT]
        self.summary = "/".join([*found, C8] if self.int8_cache else found)
        self._schemes = {kind: _SCHEMES[kind](description) for kind in kinds}

    def scheme(self, names: Sequence[str]) -> Scheme:
        """That of the type which the file gives all of `names`.

        Raises:
            ValueError: a name is not in the file, or the types differ.
        """
        types = {name: self._description.type_of(name) for name in names}
        return self._schemes[one_type(self._description.file, types)]


class CompressedPlan:
    """As the groups of a compressed-tensors configuration have it."""

    quantized = True
    int8_cache = False

    def __init__(self, config: CompressedTensors) -> None:
        self._config = config
        self.summary = "/".join(dict.fromkeys(group.type for group in config.groups))

    def scheme(self, names: Sequence[str]) -> Scheme:
        """That of the group which all of `names` are in; float where they are in none.

        Raises:
            ValueError: a name is in several groups, or the types differ.
        """
        types = {name: self._config.type_of(name) for name in names}
        kind = one_type(self._config.file, types)
        if kind == FLOAT:
            return Float()
        if kind == DYNAMIC:
            return CompressedDynamic()
        groups = [self._config.group(name) for name in names]
        return CompressedStatic(any(group is not None and group.zero_point for group in groups))


def plan_of(
    found: Description | CompressedTensors | SparseDescription | None,
    rank: Rank | None = None,
    device: Device = Device.CPU,
    *,
    decode: bool = False,
) -> Plan:
    """The plan of a checkpoint that says this of itself, for one rank on `device`. `decode`:
    compressed weights are decoded when they are loaded.

    Raises:
        ValueError: it contradicts itself, or has types that are not supported there.
    """
    if found is None:
        return FloatPlan()
    if isinstance(found, CompressedTensors):
        return CompressedPlan(found)
    if isinstance(found, SparseDescription):
        return SparsePlan(found, rank or Rank(0, 1), device, decode=decode)
    return DescribedPlan(found)
