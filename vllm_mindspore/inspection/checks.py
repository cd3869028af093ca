# SPDX-License-Identifier: Apache-2.0
"""Why a checkpoint cannot be served: its headers against its description and the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from vllm_mindspore.inspection.checkpoint import Checkpoint
from vllm_mindspore.inspection.formats import CACHE, FLOATS, parts_of, problems_of
from vllm_mindspore.inspection.layers import NOT_DESCRIBED, Layer
from vllm_mindspore.model_executor.model_loader.quantization_files import Quantization
from vllm_mindspore.model_executor.model_loader.safetensors_header import TensorInfo
from vllm_mindspore.model_executor.models.layout import DECODER_PREFIX, UNUSED, Layout, Linear
from vllm_mindspore.quantization.description import (
    SPARSE,
    STATIC,
    TYPES,
    WEIGHT_INT4,
    Description,
    Tool,
    one_type,
)
from vllm_mindspore.quantization.kv_cache import is_int8

_EMBEDDING = "embed_tokens.weight"
_CACHED = (".k_proj", ".v_proj")


def problems(checkpoint: Checkpoint, layers: Sequence[Layer]) -> Iterator[str]:
    """Everything that headers can tell, one line each."""
    if isinstance(checkpoint.quantization, Description):
        yield from _of_description(checkpoint, checkpoint.quantization, layers)
    if checkpoint.layout is not None and checkpoint.tensors:
        yield from _of_model(checkpoint, checkpoint.layout, layers)
    elif checkpoint.tensors:
        for layer in layers:
            yield from _of_layer(checkpoint, layer)


def _of_description(
    checkpoint: Checkpoint, description: Description, layers: Sequence[Layer]
) -> Iterator[str]:
    unknown = Counter(layer.type for layer in layers)
    for kind in (*TYPES, NOT_DESCRIBED):
        del unknown[kind]
    for kind, count in unknown.items():
        yield (
            f"{description.file}: {count} layers have the type {kind!r:.40}, which is not "
            f"supported; supported: {', '.join(TYPES)}"
        )
    try:
        description.check("bfloat16")  # in which every type is computed
        is_int8(description)
    except ValueError as error:
        if not unknown:
            yield str(error)
    for tensor, kind in description.types.items():
        if tensor not in checkpoint.tensors and checkpoint.tensors:
            yield f"missing tensor {tensor}: {description.file.name} says it is {kind:.40}"


def _of_model(checkpoint: Checkpoint, layout: Layout, layers: Sequence[Layer]) -> Iterator[str]:
    modules = {layer.name: layer for layer in layers}
    strip = _stores_decoder_only(checkpoint)
    for tensor, shape in layout.floats.items():
        name = tensor.removeprefix(DECODER_PREFIX) if strip else tensor
        yield from _of_float(name, shape, checkpoint.tensors.get(name))
    taken = {name.removeprefix(DECODER_PREFIX) if strip else name for name in layout.floats}
    for together in layout.linears:
        linears = [linear for linear in together if not _is_left_out(checkpoint, linear)]
        names = [_name(linear, strip) for linear in linears]
        taken |= {f"{name}.{last}" for name in names for last in _tensors(modules.get(name))}
        for name, linear in zip(names, linears, strict=True):
            yield from _of_linear(checkpoint, name, linear, modules.get(name))
        yield from _of_types(checkpoint, [modules[name] for name in names if name in modules])
    if not checkpoint.pools:
        for tensor in checkpoint.tensors:
            if tensor not in taken and not tensor.endswith(UNUSED):
                yield f"extra tensor {tensor}: the model has no such weight"


def _of_float(name: str, shape: tuple[int, ...], info: TensorInfo | None) -> Iterator[str]:
    if info is None:
        yield f"missing tensor {name}: expected shape {list(shape)}"
    elif info.dtype not in FLOATS:
        yield f"tensor {name}: expected dtype {'/'.join(FLOATS)}, found {info.dtype}"
    elif info.shape != shape:
        yield f"tensor {name}: expected shape {list(shape)}, found {list(info.shape)}"


def _of_linear(
    checkpoint: Checkpoint, name: str, linear: Linear, layer: Layer | None
) -> Iterator[str]:
    sizes = (linear.in_features, linear.out_features)
    if layer is None:
        yield f"missing tensor {name}.weight: expected shape {list(reversed(sizes))}"
        return
    description = checkpoint.quantization
    if layer.type == NOT_DESCRIBED and isinstance(description, Description):
        yield str(description.unknown(name))
    parts = parts_of(description, layer.type)
    if parts is None:
        return  # that the type is unknown or unclear is told elsewhere
    if name.endswith(_CACHED) and _has_int8_cache(description):
        parts = {**parts, **CACHE}
    yield from problems_of(name, layer.tensors, parts, sizes)
    has_bias = "bias" in layer.tensors
    if has_bias != linear.bias and not _has_folded_bias(checkpoint, layer):
        word = "extra" if has_bias else "missing"
        yield f"{word} tensor {name}.bias: the model has {'a' if linear.bias else 'no'} bias here"


def _has_int8_cache(found: Quantization | None) -> bool:
    try:
        return isinstance(found, Description) and is_int8(found)
    except ValueError:
        return False  # told with the description


def _has_folded_bias(checkpoint: Checkpoint, layer: Layer) -> bool:
    """quant_bias holds it; whether files repeat it does not matter."""
    return _tool(checkpoint) is Tool.MODELSLIM and layer.type in (STATIC, SPARSE)


def _tool(checkpoint: Checkpoint) -> Tool | None:
    found = checkpoint.quantization
    return found.tool if isinstance(found, Description) else None


def _of_layer(checkpoint: Checkpoint, layer: Layer) -> Iterator[str]:
    """Of a model that is not known: its weight says which sizes it has."""
    weight = layer.tensors.get("weight")
    parts = parts_of(checkpoint.quantization, layer.type)
    if layer.type == WEIGHT_INT4 and _tool(checkpoint) is Tool.MODELSLIM:
        return  # its weights do not say what is packed
    if weight is not None and weight.dtype == "I8" and len(weight.shape) == 2 and parts is not None:
        rows, columns = weight.shape
        sizes = (rows, 2 * columns) if layer.type == WEIGHT_INT4 else (columns, rows)
        yield from problems_of(layer.name, layer.tensors, parts, sizes)


def _of_types(checkpoint: Checkpoint, layers: Sequence[Layer]) -> Iterator[str]:
    types = {layer.name: layer.type for layer in layers if layer.type != NOT_DESCRIBED}
    try:
        if checkpoint.quantization is not None and types:
            one_type(checkpoint.quantization.file, types)
    except ValueError as error:
        yield str(error)


def _stores_decoder_only(checkpoint: Checkpoint) -> bool:
    """Whether names lack the prefix of the decoder in a whole model."""
    tensors = checkpoint.tensors
    return _EMBEDDING in tensors and f"{DECODER_PREFIX}{_EMBEDDING}" not in tensors


def _is_left_out(checkpoint: Checkpoint, linear: Linear) -> bool:
    """A head that a pooling model does not have."""
    return checkpoint.pools and not linear.name.startswith(DECODER_PREFIX)


def _name(linear: Linear, strip: bool) -> str:
    return linear.name.removeprefix(DECODER_PREFIX) if strip else linear.name


def _tensors(layer: Layer | None) -> list[str]:
    return [] if layer is None else list(layer.tensors)
