# SPDX-License-Identifier: Apache-2.0
"""The modules of a checkpoint, with the type and tensors of each, and equal ones folded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from vllm_mindspore.inspection.checkpoint import Checkpoint
from vllm_mindspore.inspection.formats import FLOATS
from vllm_mindspore.model_executor.model_loader.safetensors_header import TensorInfo
from vllm_mindspore.quantization.compressed_tensors import CompressedTensors
from vllm_mindspore.quantization.description import FLOAT

NOT_DESCRIBED = "not described"
"""Type of modules that a description leaves out."""
UNCLEAR = "?"
"""Type of modules of which nothing says how they are quantized."""

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True)
class Layer:
    """One module.

    Attributes:
        name: its name.
        type: as the checkpoint says, or what is wrong with that.
        tensors: last name -> what the header says.
    """

    name: str
    type: str
    tensors: dict[str, TensorInfo]

    @property
    def num_bytes(self) -> int:
        """Of its tensors."""
        return sum(info.num_bytes for info in self.tensors.values())


@dataclass(frozen=True)
class Row:
    """Modules with equal tensors, whose names differ in numbers or at the end.

    Attributes:
        name: theirs: `model.layers.0-27.mlp.gate_proj|up_proj`.
        count: how many.
        layer: the first of them.
    """

    name: str
    count: int
    layer: Layer


def layers_of(checkpoint: Checkpoint) -> list[Layer]:
    """All modules, in natural order."""
    parts: dict[str, dict[str, TensorInfo]] = {}
    for tensor, info in checkpoint.tensors.items():
        module, _, last = tensor.rpartition(".")
        parts.setdefault(module, {})[last] = info
    return [
        Layer(name, _type(checkpoint, name, parts[name]), dict(sorted(parts[name].items())))
        for name in sorted(parts, key=_natural)
    ]


def fold(layers: Iterable[Layer]) -> list[Row]:
    """Equal ones together, in the order of the first."""
    numbered: dict[tuple[object, ...], list[Layer]] = {}
    for layer in layers:
        shapes = tuple((last, info.dtype, info.shape) for last, info in layer.tensors.items())
        numbered.setdefault((_NUMBER.sub("*", layer.name), layer.type, shapes), []).append(layer)
    named: dict[tuple[object, ...], list[list[Layer]]] = {}
    for (_, *alike), same in numbered.items():
        parent = _ranges(same).rpartition(".")[0]
        named.setdefault((parent, *alike), []).append(same)
    return [_row(groups) for groups in named.values()]


def _row(groups: list[list[Layer]]) -> Row:
    lasts = (same[0].name.rpartition(".")[2] for same in groups[1:])
    name = "|".join([_ranges(groups[0]), *lasts])
    return Row(name, sum(len(same) for same in groups), groups[0][0])


def _type(checkpoint: Checkpoint, name: str, tensors: dict[str, TensorInfo]) -> str:
    quantization = checkpoint.quantization
    if quantization is None:
        floats = all(info.dtype in FLOATS for info in tensors.values())
        return FLOAT if floats or not checkpoint.unclear else UNCLEAR
    if isinstance(quantization, CompressedTensors):
        matrix = len(tensors["weight"].shape) == 2 if "weight" in tensors else False
        kind = checkpoint.attempt(lambda: quantization.type_of(name)) if matrix else FLOAT
        return kind or UNCLEAR
    kinds = {quantization.types.get(f"{name}.{last}" if name else last) for last in tensors}
    kinds -= {None}
    # The weight decides: other tensors of the module may contradict it, which is told elsewhere.
    weight = quantization.types.get(f"{name}.weight")
    return weight or next(iter(sorted(str(kind) for kind in kinds)), NOT_DESCRIBED)


def _ranges(same: list[Layer]) -> str:
    """One name for all: the first number that differs becomes ranges."""
    if len(same) == 1:
        return same[0].name
    numbers = [[int(number) for number in _NUMBER.findall(layer.name)] for layer in same]
    texts = [_spans(sorted(set(column))) for column in zip(*numbers, strict=True)]
    return _NUMBER.sub(lambda _match: texts.pop(0), same[0].name)


def _spans(numbers: list[int]) -> str:
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    return ",".join(str(s[0]) if len(s) == 1 else f"{s[0]}-{s[-1]}" for s in spans)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts numbers by value; layers last, as their numbers make them longest."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]
