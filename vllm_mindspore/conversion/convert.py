# SPDX-License-Identifier: Apache-2.0
"""Folders of W8A8, W8A8S and W8A8SC made of one another, layer by layer.

The source is only read. The output appears under its name at once, complete; until then it is
beside it, with `.converting` behind its name.
"""

from __future__ import annotations

import enum
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from vllm_mindspore.conversion import load_check, ranks
from vllm_mindspore.conversion.ranks import HEAD, LayerSize, RankTensors, RankWriter
from vllm_mindspore.conversion.rejoined import Rejoined
from vllm_mindspore.conversion.whole import Model, Whole, WholeFolder, groups_of
from vllm_mindspore.model_executor.model_loader import preflight
from vllm_mindspore.model_executor.model_loader.checkpoint_files import object_of
from vllm_mindspore.model_executor.model_loader.quantization_files import (
    read_quantization,
    stated_in,
)
from vllm_mindspore.quantization import sparse_codec
from vllm_mindspore.quantization.description import FLOAT, SPARSE, STATIC, STEMS, Description
from vllm_mindspore.quantization.ptq import output_folder, tensor_files
from vllm_mindspore.quantization.ptq.tensor_files import Entry
from vllm_mindspore.quantization.sharding import Rank
from vllm_mindspore.quantization.sparse_description import CODEC, DTYPE, SparseDescription

Progress = Callable[[str], None]
"""Called with the name of each finished part."""

DESCRIPTION = "quantization_description.json"
_FOLDED_DESCRIPTION = "quant_model_description.json"
_CONFIG = "config.json"
_DTYPES = ("dtype", "torch_dtype")
_STATED = ("quantization_config", "compression_config")
# Weights in any form, and descriptions: written anew.
_WEIGHTS = (".safetensors", ".index.json", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5")


class Target(enum.Enum):
    """What is made."""

    COMPRESSED = "w8a8sc"
    SPARSE = "w8a8s"
    STATIC = "w8a8"


@dataclass(frozen=True)
class Summary:
    """What was made.

    Attributes:
        layers: every compressed layer of every rank; empty where nothing is compressed.
        bytes_before: of all tensors of the source.
        bytes_after: of all tensors that were written.
        notes: what the conversion to float16 changed.
    """

    layers: tuple[LayerSize, ...]
    bytes_before: int
    bytes_after: int
    notes: tuple[str, ...]


def compress(
    source: Path, output: Path, tensor_parallel_size: int, progress: Progress | None = None
) -> Summary:
    """Makes a folder of compressed weights (W8A8SC) for so many ranks of one of W8A8S or W8A8, or
    of one that was compressed for another number.

    Raises:
        ValueError: an output that exists, a source that cannot be compressed, or sizes that the
            ranks do not divide; before any work where that can be known.
    """
    return convert(source, output, Target.COMPRESSED, tensor_parallel_size, progress)


def convert(
    source: Path,
    output: Path,
    target: Target,
    tensor_parallel_size: int = 1,
    progress: Progress | None = None,
) -> Summary:
    """The same, to any target. Uncompressed ones are for any number of ranks.

    Raises:
        ValueError: as `compress`, and for ranks of what is not divided.
    """
    output = output.resolve()
    output_folder.check_place(output, source)
    if target is not Target.COMPRESSED and tensor_parallel_size != 1:
        raise ValueError(
            f"{target.value} folders are divided when they are loaded: leave "
            f"--tensor-parallel-size {tensor_parallel_size} out"
        )
    whole = open_whole(source)
    whole.model.config.of_rank(Rank(0, tensor_parallel_size))
    _check_room(whole, output, tensor_parallel_size)
    work = work_place(output)
    _make_work(work)
    try:
        _copy_other_files(source, work, half=target is Target.COMPRESSED)
        if target is Target.COMPRESSED:
            found = _write_ranks(whole, work, tensor_parallel_size, progress)
        else:
            found = _write_whole(whole, work, target, progress)
        if output.is_dir():
            output.rmdir()  # empty
        work.replace(output)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return found


def work_place(output: Path) -> Path:
    """Where a folder is made before it appears."""
    return output.with_name(f"{output.name}.converting")


def parts(model: Model) -> list[str]:
    """What `progress` is called with, in order."""
    return [*(f"layer {index}" for index in range(model.config.num_layers)), "other tensors"]


def open_whole(source: Path) -> Whole:
    """The model in a folder.

    Raises:
        ValueError: it is none that can be converted.
    """
    if not source.is_dir():
        raise ValueError(f"{source} is no folder")
    preflight.check_config(source)
    model = Model.of(source)
    found = read_quantization(source, stated_in(model.hf_config))
    if isinstance(found, SparseDescription):
        return Rejoined(model, found)
    if isinstance(found, Description):
        whole = WholeFolder(model, found)
        load_check.check_whole(model, found)
        return whole
    raise ValueError(
        f"{source}: expected layers of type W8A8S or W8A8 as `vllm-mindspore quantize` writes "
        f"them; found {found.writer if found else 'float weights'}. Quantize the float model first"
    )


def _make_work(work: Path) -> None:
    try:
        work.mkdir(parents=True)
    except FileExistsError as error:
        raise ValueError(
            f"{work} exists: another conversion is writing there, or one was killed and left it; "
            "in that case remove it"
        ) from error


def _write_ranks(whole: Whole, folder: Path, count: int, progress: Progress | None) -> Summary:
    writers = [RankWriter(whole, Rank(index, count)) for index in range(count)]
    entries: list[dict[str, object]] = [{} for _ in writers]
    layers: list[LayerSize] = []
    notes: dict[str, None] = {}
    total = 0
    for index in range(count):
        (folder / f"rank_{index}").mkdir()
    for number, part in enumerate(parts(whole.model)):
        for index, writer in enumerate(writers):
            made = _part_of_rank(whole, writer, number)
            file = folder / f"rank_{index}" / f"model-{number:05d}.safetensors"
            written = [Entry.of(name, values) for name, values in made.tensors.items()]
            tensor_files.write(file, written, {"format": "pt"})
            total += sum(entry.num_bytes for entry in written)
            entries[index].update(made.entries)
            layers += made.sizes
            notes.update(dict.fromkeys(made.notes))
        if progress is not None:
            progress(part)
    description: dict[str, object] = {
        CODEC: {"name": sparse_codec.NAME, "version": sparse_codec.VERSION}
    }
    description |= {f"rank_{index}": found for index, found in enumerate(entries)}
    tensor_files.write_json(folder / DESCRIPTION, description)
    return Summary(tuple(layers), whole.num_bytes, total, tuple(notes))


def _part_of_rank(whole: Whole, writer: RankWriter, number: int) -> RankTensors:
    found, model = RankTensors(), whole.model
    for names in groups_of(model):
        if model.part_of(names[0]) == number:
            writer.add_linears(found, names)
    for name in model.layout.floats:
        if model.part_of(name) == number:
            writer.add_float(found, name)
    return found


def _write_whole(whole: Whole, folder: Path, target: Target, progress: Progress | None) -> Summary:
    types: dict[str, str] = {}
    weight_map: dict[str, str] = {}
    total = 0
    names = parts(whole.model)
    for number, part in enumerate(names):
        file = f"quant-model-{number + 1:05d}-of-{len(names):05d}.safetensors"
        entries = []
        for name, values, kind in _whole_tensors(whole, number, target):
            entries.append(Entry.of(name, values.contiguous()))
            types[name], weight_map[name] = kind, file
        tensor_files.write(folder / file, entries, {"format": "ms"})
        total += sum(entry.num_bytes for entry in entries)
        if progress is not None:
            progress(part)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    tensor_files.write_json(folder / "model.safetensors.index.json", index)
    tensor_files.write_json(folder / _description_name(whole), types)
    return Summary((), whole.num_bytes, total, ())


def _whole_tensors(
    whole: Whole, number: int, target: Target
) -> Iterator[tuple[str, torch.Tensor, str]]:
    """Name, values and type of the tensors of a part."""
    model = whole.model
    modules = [module for names in groups_of(model) for module in names]
    for module in modules:
        if model.part_of(module) == number and whole.kind(module) == FLOAT:
            names = [f"{module}.{part}" for part in ("weight", "bias")]
            yield from ((name, whole.float(name), FLOAT) for name in names if whole.has(name))
        elif model.part_of(module) == number:
            kind = SPARSE if target is Target.SPARSE and module != HEAD else STATIC
            tensors = whole.static(module).tensors()
            yield from ((f"{module}.{part}", values, kind) for part, values in tensors.items())
    for name in model.layout.floats:
        if model.part_of(name) == number:
            yield name, whole.float(name), FLOAT


def _description_name(whole: Whole) -> str:
    """Golden Stick's, or ModelSlim's where quant_bias holds biases that the model has."""
    linears = [linear for group in whole.model.layout.linears for linear in group]
    folded = any(
        linear.bias and whole.kind(linear.name) != FLOAT and not whole.has(f"{linear.name}.bias")
        for linear in linears
    )
    return _FOLDED_DESCRIPTION if folded else DESCRIPTION


def _copy_other_files(source: Path, folder: Path, *, half: bool) -> None:
    """Everything but weights, and what speaks of them. `half`: config.json says float16."""
    for file in sorted(source.iterdir()):
        described = file.name.startswith(tuple(STEMS)) and file.suffix == ".json"
        described |= file.name in (output_folder.REPORT, output_folder.PAGE)
        if file.is_file() and not file.name.endswith(_WEIGHTS) and not described:
            shutil.copyfile(file, folder / file.name)
    config = folder / _CONFIG
    content = object_of(config)
    kept = {name: value for name, value in content.items() if name not in _STATED}
    if half:
        kept = {name: value for name, value in kept.items() if name not in _DTYPES}
        kept[_DTYPES[0]] = DTYPE
    tensor_files.write_json(config, kept)


def _check_room(whole: Whole, output: Path, count: int) -> None:
    place = next(parent for parent in output.absolute().parents if parent.is_dir())
    free, needed = shutil.disk_usage(place).free, ranks.needed_bytes(whole, count)
    if free < needed:
        raise ValueError(
            f"{place} has {free / 1e9:.2f} GB free; up to {needed / 1e9:.2f} GB are needed"
        )
