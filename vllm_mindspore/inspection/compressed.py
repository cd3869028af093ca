# SPDX-License-Identifier: Apache-2.0
"""The report on a folder of compressed weights: coding, ranks, what compression gave, problems.

Headers and JSON files are read, no weight.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vllm_mindspore.device import soc
from vllm_mindspore.inspection import checkpoint as folders
from vllm_mindspore.inspection.checkpoint import Checkpoint
from vllm_mindspore.inspection.text import amount, verdict
from vllm_mindspore.model_executor.model_loader import rank_files
from vllm_mindspore.model_executor.model_loader.quantization_files import read_description
from vllm_mindspore.model_executor.model_loader.safetensors_header import TensorInfo
from vllm_mindspore.model_executor.models.layout import UNUSED, Layout, fused_sizes
from vllm_mindspore.quantization import sparse_support
from vllm_mindspore.quantization.description import FLOAT, SPARSE
from vllm_mindspore.quantization.sharding import Rank, padded_vocabulary
from vllm_mindspore.quantization.sparse_codec import NAME, VERSION
from vllm_mindspore.quantization.sparse_description import (
    COMPRESSED,
    SparseDescription,
    fused_name,
)

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_NEEDED = ("weight", "index", "deq_scale", "quant_bias", "input_scale", "input_offset")
_STATIC = tuple(part for part in _NEEDED if part != "index")

Tensors = Mapping[str, tuple[Path, TensorInfo]]


@dataclass(frozen=True)
class Row:
    """One fused layer in all decoder layers, of all ranks.

    Attributes:
        name: `model.layers.*.mlp.down_proj`.
        count: layers times ranks.
        outputs: N of a rank, 0 where the model is not known.
        inputs: K of a rank.
        stream_bytes: of all.
        index_bytes: of all.
    """

    name: str
    count: int
    outputs: int
    inputs: int
    stream_bytes: int
    index_bytes: int

    @property
    def ratio(self) -> float:
        """Compressed bytes per byte of int8 weights; 0 where their number is not known."""
        weights = self.count * self.outputs * self.inputs
        return (self.stream_bytes + self.index_bytes) / weights if weights else 0.0


@dataclass
class CompressedReport:
    """What a folder of compressed weights is.

    Attributes:
        folder: where it is.
        layout: how its files lie.
        codec: name and version of the coding.
        device: which deq_scale is encoded for, empty where it is float32.
        computed_on: the devices that compute it.
        ranks: --tensor-parallel-size.
        architecture: that of config.json.
        bytes_total: of all tensors of all ranks.
        bytes_compressed: of streams and indexes.
        rows: what compression gave.
        problems: why it cannot be served; empty if it can.
    """

    folder: Path
    layout: str
    codec: str
    device: str
    computed_on: str
    ranks: int
    architecture: str
    bytes_total: int = 0
    bytes_compressed: int = 0
    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def is_compressed(folder: Path) -> bool:
    """Whether a folder says so; one that cannot be read does not."""
    try:
        return isinstance(read_description(folder), SparseDescription)
    except ValueError:
        return False


def inspect(folder: Path) -> CompressedReport:
    """The report on a folder of which `is_compressed` is true."""
    found = read_description(folder)
    assert isinstance(found, SparseDescription)
    base = Checkpoint(folder)
    base.config = base.attempt(lambda: folders.config_of(folder)) or {}
    base.attempt(lambda: _set_layout(base, len(found.blocks)))
    report = CompressedReport(
        folder,
        found.layout.value,
        f"{NAME} version {VERSION}" if found.own_codec else "of an NPU",
        found.device,
        sparse_support.devices(found),
        len(found.blocks),
        base.architecture,
    )
    sizes = fused_sizes(base.layout) if base.layout is not None else {}
    device = soc.known_device(npu=soc.has_ascend_driver())
    base.attempt(lambda: rank_files.check(found, sizes, device, decode=False))
    rows: dict[str, Row] = {}
    for rank in range(len(found.blocks)):
        tensors = base.attempt(lambda index=rank: rank_files.headers(found, index)) or {}  # type: ignore[misc]
        report.bytes_total += sum(info.num_bytes for _, info in tensors.values())
        _count(rows, found, rank, sizes, tensors)
        if base.layout is not None and tensors:
            base.problems += _missing_and_extra(found, rank, base, base.layout, tensors)
    report.rows = list(rows.values())
    report.bytes_compressed = sum(row.stream_bytes + row.index_bytes for row in report.rows)
    report.problems = list(dict.fromkeys(base.problems))
    return report


def as_json(report: CompressedReport) -> dict[str, Any]:
    """The report as JSON values."""
    rows = [asdict(row) | {"ratio": row.ratio} for row in report.rows]
    return asdict(report) | {"folder": str(report.folder), "rows": rows}


def as_text(report: CompressedReport) -> str:
    """The report in lines; what cannot be printed is escaped."""
    lines = [*_summary(report), "", *_table(report), "", *verdict(report.problems)]
    return "\n".join(line if line.isprintable() else repr(line)[1:-1] for line in lines)


def _set_layout(base: Checkpoint, count: int) -> None:
    base.layout = folders.layout_of_rank(base, Rank(0, count))


def _count(
    rows: dict[str, Row],
    found: SparseDescription,
    rank: int,
    sizes: Mapping[str, tuple[int, int]],
    tensors: Tensors,
) -> None:
    block = found.blocks[rank]
    for name, kind in block.types.items():
        module, _, last = name.rpartition(".")
        if last != "weight" or kind != SPARSE:
            continue
        places = (tensors.get(name), tensors.get(f"{module}.index"))
        stream, index = (0 if place is None else place[1].num_bytes for place in places)
        inner, outer = sizes.get(module, (0, 0))
        key = _NUMBER.sub("*", module)
        before = rows.get(key, Row(key, 0, outer, inner, 0, 0))
        totals = before.stream_bytes + stream, before.index_bytes + index
        rows[key] = Row(key, before.count + 1, outer, inner, *totals)


def _missing_and_extra(
    found: SparseDescription, rank: int, base: Checkpoint, layout: Layout, tensors: Tensors
) -> Iterator[str]:
    """What the model needs of a rank, and what it does not know."""
    block, expected = found.blocks[rank], set(UNUSED)
    padded = padded_vocabulary(int(base.config.get("vocab_size", 0)), 1)
    for name, shape in layout.floats.items():
        expected.add(name)
        shapes = [shape, (padded, *shape[1:])] if len(found.blocks) == 1 else [shape]
        if name not in tensors:
            yield f"rank {rank}: missing tensor {name}: expected shape {list(shape)}"
        elif tensors[name][1].shape not in shapes:
            yield (
                f"rank {rank}: tensor {name}: expected shape {list(shape)}, found "
                f"{list(tensors[name][1].shape)}"
            )
    for group in layout.linears:
        module = fused_name([linear.name for linear in group])
        kind = block.type_of(module)
        if kind is None:
            yield f"{found.file} does not say what {module} of rank {rank} is"
            continue
        needed = {SPARSE: _NEEDED, FLOAT: ("weight",)}.get(kind, _STATIC)
        if group[0].bias and f"{module}.bias" in block.types:
            needed = (*needed, "bias")
        expected |= {f"{module}.{part}" for part in (*needed, "bias", "info")}
        for part in needed:
            if f"{module}.{part}" not in tensors:
                yield f"rank {rank}: missing tensor {module}.{part}"
    for name in tensors:
        if name not in expected and not name.endswith(UNUSED):
            yield f"rank {rank}: extra tensor {name}: the model has no such weight"


def _summary(report: CompressedReport) -> Iterator[str]:
    device = f", deq_scale encoded for {report.device}" if report.device else ""
    yield f"folder         {report.folder}"
    yield f"type           {COMPRESSED}, {report.layout}"
    yield f"coding         {report.codec}{device}"
    yield f"computed on    {report.computed_on}"
    yield f"made for       {report.ranks} ranks (--tensor-parallel-size {report.ranks})"
    yield f"architecture   {report.architecture or '?'}"
    total, compressed = report.bytes_total, report.bytes_compressed
    yield f"size           {amount(total)}, of which compressed weights {amount(compressed)}"
    weights = sum(row.count * row.outputs * row.inputs for row in report.rows)
    if weights:
        yield f"ratio          {compressed / weights:.1%} of the bytes of int8 weights"


def _table(report: CompressedReport) -> Iterator[str]:
    width = max([len("layers"), *(len(row.name) for row in report.rows)])
    yield f"{'layers':<{width}}  count  outputs x inputs        bytes  of int8"
    for row in report.rows:
        shape = f"{row.outputs} x {row.inputs}" if row.outputs else "?"
        ratio = f"{row.ratio:.1%}" if row.ratio else "?"
        size = row.stream_bytes + row.index_bytes
        yield f"{row.name:<{width}}  {row.count:>5}  {shape:>16}  {size:>11}  {ratio:>7}"
