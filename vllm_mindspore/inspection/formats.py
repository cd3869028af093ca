# SPDX-License-Identifier: Apache-2.0
"""The tensors of a linear layer of each type: what its headers must and may hold.

The schemes read them when a model is loaded; `tests` hold both together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vllm_mindspore.model_executor.model_loader.quantization_files import Quantization
from vllm_mindspore.model_executor.model_loader.safetensors_header import TensorInfo
from vllm_mindspore.quantization.compressed_tensors import CompressedTensors
from vllm_mindspore.quantization.description import (
    CACHE_OFFSET,
    CACHE_SCALE,
    DYNAMIC,
    FLOAT,
    GROUP_SIZES,
    SPARSE,
    STATIC,
    WEIGHT_INT4,
    WEIGHT_INT8,
    Tool,
)

FLOATS = ("F32", "BF16", "F16")
# By input and output features of the layer.
_WEIGHT, _INPUT, _OUTPUT = ("NK",), ("K", "1"), ("N", "N1")


@dataclass(frozen=True)
class Part:
    """A tensor of a layer.

    Attributes:
        shapes: of N, K, 1, P (pairs of N), H (pairs of K) and G (groups of K).
        dtypes: as the safetensors format names them.
        required: whether each layer has it.
    """

    shapes: tuple[str, ...]
    dtypes: tuple[str, ...]
    required: bool = True

    def shapes_of(self, in_features: int, out_features: int) -> list[tuple[int, ...]]:
        """In numbers; groups have any of GROUP_SIZES that divides K."""
        sizes = {"N": out_features, "K": in_features, "1": 1}
        sizes |= {"P": out_features // 2, "H": in_features // 2}
        groups = [in_features // size for size in GROUP_SIZES if in_features % size == 0]
        found = [
            tuple((sizes | {"G": count})[axis] for axis in shape)
            for shape in self.shapes
            for count in (groups if "G" in shape else [0])
        ]
        return list(dict.fromkeys(found))


_INT8 = {"weight": Part(_WEIGHT, ("I8",))}
_BIAS = {"bias": Part(("N",), FLOATS, required=False)}
_OFFSETS = Part(_OUTPUT, (*FLOATS, "I32", "I8"), required=False)
_SCALE = Part(_OUTPUT, (*FLOATS, "I64"))

_FLOAT = {"weight": Part(_WEIGHT, FLOATS), **_BIAS}
_STATIC = {
    **_INT8,
    "deq_scale": _SCALE,
    "quant_bias": Part(("N",), ("I32",)),
    "input_scale": Part(_INPUT, FLOATS),
    "input_offset": Part(_INPUT, ("I8", *FLOATS)),
    "beta": Part(("K",), FLOATS, required=False),
    "weight_scale": _OFFSETS,
    "weight_offset": _OFFSETS,
    **_BIAS,
}
_DESCRIBED = {
    FLOAT: _FLOAT,
    STATIC: _STATIC,
    SPARSE: _STATIC,
    DYNAMIC: {
        **_INT8,
        "weight_scale": _SCALE,
        "weight_offset": _OFFSETS,
        "smooth_scale": Part(("K",), FLOATS, required=False),
        **_BIAS,
    },
}
_WEIGHTS_ALONE = {
    tool: {
        kind: {
            "weight": Part(weights, ("I8",)),
            "weight_scale": Part((*_OUTPUT, groups), FLOATS),
            "weight_offset": Part((*_OUTPUT, groups), _OFFSETS.dtypes, required=False),
            **_BIAS,
        }
        for kind, weights in ((WEIGHT_INT8, _WEIGHT), (WEIGHT_INT4, packed))
    }
    for tool, groups, packed in (
        (Tool.GOLDEN_STICK, "GN", ("KP",)),
        (Tool.MODELSLIM, "NG", ("NH", "PK", "NK")),
    )
}
_ZERO_POINTS = {"weight_zero_point": _OFFSETS}
_COMPRESSED = {
    FLOAT: _FLOAT,
    STATIC: {
        **_INT8,
        "weight_scale": _SCALE,
        "input_scale": Part(("1",), FLOATS),
        "input_zero_point": Part(("1",), ("I8",), required=False),
        **_ZERO_POINTS,
        **_BIAS,
    },
    DYNAMIC: {**_INT8, "weight_scale": _SCALE, **_ZERO_POINTS, **_BIAS},
}

CACHE: Mapping[str, Part] = {
    last: Part(("N", "N1", "1N", "1"), (*FLOATS, "I8", "I32"))
    for last in (CACHE_SCALE, CACHE_OFFSET)
}
"""What the key and value projections have besides, where the cache is int8."""


def parts_of(quantization: Quantization | None, kind: str) -> Mapping[str, Part] | None:
    """Last names of the tensors of a layer of type `kind`; None for types that are not served."""
    if isinstance(quantization, CompressedTensors):
        return _COMPRESSED.get(kind)
    alone = {} if quantization is None else _WEIGHTS_ALONE[quantization.tool]
    return _DESCRIBED.get(kind) or alone.get(kind)


def problems_of(
    name: str,
    found: Mapping[str, TensorInfo],
    parts: Mapping[str, Part],
    sizes: tuple[int, int],
) -> Iterable[str]:
    """What is wrong with the tensors of layer `name`, which has `sizes` (K, N)."""
    for last, part in parts.items():
        shapes = part.shapes_of(*sizes)
        expected = " or ".join(str(list(shape)) for shape in shapes)
        info = found.get(last)
        if info is None:
            if part.required:
                yield f"missing tensor {name}.{last}: expected shape {expected}"
        elif info.dtype not in part.dtypes:
            yield (
                f"tensor {name}.{last}: expected dtype {'/'.join(part.dtypes)}, found {info.dtype}"
            )
        elif info.shape not in shapes:
            yield f"tensor {name}.{last}: expected shape {expected}, found {list(info.shape)}"
    for last in found:
        if last not in parts:
            yield f"extra tensor {name}.{last}: layers of this type have none"
