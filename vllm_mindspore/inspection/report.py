# SPDX-License-Identifier: Apache-2.0
"""The report on a checkpoint: as data for programs, as text for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vllm_mindspore.inspection import checkpoint as folders
from vllm_mindspore.inspection.checkpoint import Checkpoint
from vllm_mindspore.inspection.checks import problems
from vllm_mindspore.inspection.layers import Layer, Row, fold, layers_of
from vllm_mindspore.inspection.scales import Range, ranges_of
from vllm_mindspore.inspection.text import amount, verdict
from vllm_mindspore.model_executor.model_loader.quantization_files import stated_in
from vllm_mindspore.quantization.compressed_tensors import CompressedTensors
from vllm_mindspore.quantization.description import FLOAT

_KV_KEYS = ("kv_cache_type", "kv_quant_type")


@dataclass(frozen=True)
class Sizes:
    """Bytes of tensors: all, those of quantized layers, the others."""

    total: int
    quantized: int
    floats: int


@dataclass(frozen=True)
class Report:
    """What a checkpoint is.

    Attributes:
        folder: where it is.
        tool: who wrote it.
        flag: what --quantization may be; empty for plain weights.
        architecture: that of config.json.
        model_type: that of config.json.
        dtypes: dtype of the safetensors format -> tensors that have it.
        types: type -> modules that have it.
        kv_cache: type of the key/value cache.
        sizes: bytes.
        rows: its modules, equal ones together.
        ranges: of scales, by their last names.
        problems: why it cannot be served; empty if it can.
    """

    folder: Path
    tool: str
    flag: str
    architecture: str
    model_type: str
    dtypes: dict[str, int]
    types: dict[str, int]
    kv_cache: str
    sizes: Sizes
    rows: list[Row]
    ranges: dict[str, Range]
    problems: list[str]


def inspect(folder: Path) -> Report:
    """The report on the checkpoint in `folder`; whatever is wrong with it is a problem in there."""
    found = folders.read(folder)
    layers = layers_of(found)
    ranges = ranges_of(found)
    found.problems += problems(found, layers)
    return Report(
        folder=folder,
        tool=_tool(found),
        flag=found.quantization.names[0] if found.quantization else "",
        architecture=found.architecture,
        model_type=str(found.config.get("model_type", "")),
        dtypes=dict(Counter(info.dtype for info in found.tensors.values()).most_common()),
        types=dict(Counter(layer.type for layer in layers).most_common()),
        kv_cache=_kv_cache(found),
        sizes=_sizes(layers),
        rows=fold(layers),
        ranges=ranges,
        problems=list(dict.fromkeys(found.problems)),
    )


def as_json(report: Report) -> dict[str, Any]:
    """The report as JSON values."""
    fields = asdict(report) | {"folder": str(report.folder), "layers": []}
    del fields["rows"]
    for row in report.rows:
        tensors = {
            last: {"dtype": info.dtype, "shape": list(info.shape)}
            for last, info in row.layer.tensors.items()
        }
        fields["layers"].append(
            {"name": row.name, "count": row.count, "type": row.layer.type, "tensors": tensors}
        )
    return fields


def as_text(report: Report) -> str:
    """The report in lines; what cannot be printed is escaped."""
    lines = [
        *_summary(report),
        "",
        *_table(report.rows),
        *_scales(report),
        "",
        *verdict(report.problems),
    ]
    return "\n".join(line if line.isprintable() else repr(line)[1:-1] for line in lines)


def _tool(found: Checkpoint) -> str:
    if found.quantization is not None:
        return found.quantization.writer
    stated = stated_in(found.config)
    if stated is not None:
        method = stated.get("quant_method") if isinstance(stated, dict) else stated
        return f"unclear (quantization_config has quant_method {method!r:.100})"
    return "unclear (the description file is missing)" if found.unclear else "none: float weights"


def _kv_cache(found: Checkpoint) -> str:
    if isinstance(found.quantization, CompressedTensors) or found.quantization is None:
        return "dtype of the model"
    keys = found.quantization.keys
    stated = [f"{keys[key]:.40}" for key in _KV_KEYS if isinstance(keys.get(key), str)]
    return ", ".join(stated) or "dtype of the model"


def _sizes(layers: Sequence[Layer]) -> Sizes:
    total = sum(layer.num_bytes for layer in layers)
    floats = sum(layer.num_bytes for layer in layers if layer.type == FLOAT)
    return Sizes(total, total - floats, floats)


def _summary(report: Report) -> Iterator[str]:
    flag = f" (--quantization {report.flag})" if report.flag else ""
    yield f"folder         {report.folder}"
    yield f"written by     {report.tool}{flag}"
    yield f"architecture   {report.architecture or '?'} (model type {report.model_type or '?'})"
    yield f"types          {_counts(report.types, 'modules')}"
    yield f"dtypes         {_counts(report.dtypes, 'tensors')}"
    sizes = report.sizes
    yield (
        f"size           {amount(sizes.total)} ({sizes.total} bytes): quantized layers "
        f"{amount(sizes.quantized)}, float {amount(sizes.floats)}"
    )
    yield f"KV cache       {report.kv_cache}"


def _counts(found: dict[str, int], noun: str) -> str:
    return ", ".join(f"{name}: {count}" for name, count in found.items()) + f" {noun}"


def _table(rows: Sequence[Row]) -> Iterator[str]:
    cells = [("modules", "type", "tensors")]
    for row in rows:
        tensors = ", ".join(
            f"{last} {info.dtype} {'x'.join(map(str, info.shape)) or '1'}"
            for last, info in row.layer.tensors.items()
        )
        cells.append((row.name, row.layer.type, tensors))
    name, kind = (max(len(line[column]) for line in cells) for column in (0, 1))
    yield from (f"{line[0]:<{name}}  {line[1]:<{kind}}  {line[2]}" for line in cells)


def _scales(report: Report) -> Iterator[str]:
    if report.ranges:
        yield from ("", "ranges of scales")
    for last, found in report.ranges.items():
        yield f"  {last:<14} {found.least:.4g} to {found.largest:.4g} ({found.tensors} tensors)"
