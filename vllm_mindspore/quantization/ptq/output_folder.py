# SPDX-License-Identifier: Apache-2.0
"""The finished checkpoint: weights, index, description, report and the other files of the source.

The folder appears under its name at once, complete.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_mindspore import __version__
from vllm_mindspore.model_executor.model_loader import strict_json
from vllm_mindspore.model_executor.models.layout import HEAD
from vllm_mindspore.quantization.description import C8, CACHE_KEYS, FLOAT, WEIGHT_INT4, Tool
from vllm_mindspore.quantization.ptq import report, report_page, tensor_files, work_folder
from vllm_mindspore.quantization.ptq.job import HEAD_PART, Job
from vllm_mindspore.quantization.ptq.policy import Policy
from vllm_mindspore.quantization.ptq.report import NOT_MEASURED, Evaluation, Origin, Sizes
from vllm_mindspore.quantization.ptq.tensor_files import Entry
from vllm_mindspore.quantization.ptq.work_folder import WorkFolder

REPORT, PAGE = "quantization_report.json", "quantization_report.html"
_GOLDEN_STICK_DESCRIPTION = "quantization_description.json"
_MODELSLIM_DESCRIPTION = "quant_model_description.json"
_MODELSLIM_VERSION = "1.0.0"
_CONFIG = "config.json"
_OUTPUT = "output"
# Weights in any form; those that count are written anew.
_WEIGHTS = (
    *(".safetensors", ".index.json", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack"),
)
_MARGIN_BYTES = 1 << 24
_PER_ROW, _PER_COLUMN = 32, 16  # bytes of scales and offsets, at most


Evaluate = Callable[[Path], Evaluation]
"""Measures the checkpoint in a folder, and the float one."""


@dataclass(frozen=True)
class _Contents:
    """What goes into the folder."""

    entries: list[Entry]
    types: dict[str, str]
    linears: list[Mapping[str, Any]]
    cache: list[Mapping[str, Any]]


def check_place(folder: Path, source: Path) -> None:
    """Before any work: raises ValueError for a folder that holds something, or the source."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an empty folder; choose another --output")
    if folder.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{folder} is in the model's own folder {source}; choose another --output")


def check_room(job: Job, folder: Path, folders: int = 1) -> None:
    """Before any work: raises ValueError for a disk without room for so many finished folders."""
    place = next(parent for parent in folder.absolute().parents if parent.is_dir())
    free, needed = shutil.disk_usage(place).free, needed_bytes(job, folders)
    if free < needed:
        raise ValueError(
            f"{place} has {free / 1e9:.2f} GB free; {needed / 1e9:.2f} GB are needed, for the "
            "checkpoint and the finished parts it is made of"
        )


def open_work(job: Job, folder: Path) -> WorkFolder:
    """The finished parts of an earlier run, or an empty folder for them.

    Raises ValueError if they are parts of something else.
    """
    return WorkFolder(_work_place(folder), job.fingerprint())


def remove_work(folder: Path) -> None:
    """Once `folder` is complete; may be interrupted and called again (`is_complete`)."""
    work = _work_place(folder)
    for entry in work.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != work_folder.STATE:
            entry.unlink()
    shutil.rmtree(work)


def has_work(folder: Path) -> bool:
    """Whether `folder` was begun."""
    return _work_place(folder).is_dir()


def is_complete(job: Job, folder: Path, ranks: int | None = None) -> bool:
    """Whether `folder` was made by this job, which was interrupted before its work was removed, and
    compressed for so many ranks; None: not compressed.

    Raises ValueError for a report that is none.
    """
    work, file = _work_place(folder), folder / REPORT
    if (work / _OUTPUT).exists() or not file.is_file():
        return False
    if not work_folder.was_made_for(work, job.fingerprint()):
        return False
    found = strict_json.parse_object(file.read_bytes(), str(file))
    return report.compressed_for(found) == ranks


def _work_place(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.partial")


def needed_bytes(job: Job, folders: int = 1) -> int:
    """Of disk, at most: the finished parts and the folders that are made of them."""
    total = job.checkpoint.num_bytes()
    linear = {f"{name}.weight": policy for name, policy in job.policies.items()}
    for name in job.checkpoint.names:
        if name in linear and linear[name].kind != FLOAT:
            values = job.checkpoint.any(name)
            total += _quantized_bytes(tuple(values.shape), linear[name]) - values.nbytes
    if HEAD in job.policies:
        config = job.checkpoint.config
        shape = (config.vocab_size, config.hidden_size)
        total += _quantized_bytes(shape, job.policies[HEAD])
    if job.int8_cache:
        total += job.checkpoint.config.num_layers * job.checkpoint.config.attention.kv_size * 16
    return (1 + folders) * total + _MARGIN_BYTES


def write(
    job: Job,
    work: WorkFolder,
    options: Mapping[str, Any],
    calibration: Mapping[str, Any],
    folder: Path,
    scratch: Path,
    evaluate: Evaluate | None = None,
) -> None:
    """Makes `folder` of the finished parts; options and calibration are for the report. `scratch`
    is an existing folder of the same disk. `evaluate` is given the finished checkpoint before it
    appears."""
    origin = Origin(__version__, job.tool.value, options, calibration)
    output = scratch / _OUTPUT
    shutil.rmtree(output, ignore_errors=True)  # of a run that was interrupted here
    output.mkdir()
    contents = _contents(job, work)
    _copy_other_files(job, output)
    weight_map = _write_weights(job, contents, output)
    total = sum(entry.num_bytes for entry in contents.entries)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    tensor_files.write_json(output / _index_name(job), index)
    name, description = _description(job, contents.types)
    tensor_files.write_json(output / name, description)
    sizes = Sizes(job.checkpoint.num_bytes(), total)
    evaluation = NOT_MEASURED if evaluate is None else evaluate(output)
    content = report.content(origin, contents.linears, sizes, contents.cache, evaluation)
    tensor_files.write_json(output / REPORT, content)
    (output / PAGE).write_text(report_page.page(content), encoding="utf-8")
    folder.parent.mkdir(parents=True, exist_ok=True)
    output.replace(folder)


def _contents(job: Job, work: WorkFolder) -> _Contents:
    made = [(part, work.content(part)) for part in job.parts()]
    replaced = {name for _, content in made for name in content["replaces"]}
    kept = [name for name in job.checkpoint.names if name not in replaced]
    found = _Contents([], dict.fromkeys(kept, FLOAT), [], [])
    found.entries.extend(Entry.of(name, job.checkpoint.any(name)) for name in kept)
    for part, content in made:
        found.entries.extend(work.entries(part))
        found.types.update(content["types"])
        found.linears.extend(content["linears"])
        found.cache.extend(content["cache"])
    return found


def _write_weights(job: Job, contents: _Contents, output: Path) -> dict[str, str]:
    """Tensor -> file."""
    parts = tensor_files.split(contents.entries)
    weight_map: dict[str, str] = {}
    for number, entries in enumerate(parts, start=1):
        name = _weights_name(job, number, len(parts))
        metadata = {"format": "ms"} if job.tool is Tool.GOLDEN_STICK else {"format": "pt"}
        for entry in entries:
            if contents.types[entry.name] == WEIGHT_INT4 and entry.name.endswith(".weight"):
                metadata[entry.name] = "Int4"
        tensor_files.write(output / name, entries, metadata)
        weight_map |= {entry.name: name for entry in entries}
    return weight_map


def _weights_name(job: Job, number: int, count: int) -> str:
    if job.tool is Tool.GOLDEN_STICK:
        return f"quant-model-{number:05d}-of-{count:05d}.safetensors"
    place = "" if count == 1 else f"-{number:05d}-of-{count:05d}"
    return f"quant_model_weight_{_main_type(job.policies).lower()}{place}.safetensors"


def _index_name(job: Job) -> str:
    if job.tool is Tool.GOLDEN_STICK:
        return "model.safetensors.index.json"
    return f"quant_model_weight_{_main_type(job.policies).lower()}.safetensors.index.json"


def _description(job: Job, types: Mapping[str, str]) -> tuple[str, dict[str, object]]:
    """Name and contents."""
    cache = dict.fromkeys(CACHE_KEYS, C8) if job.int8_cache else {}
    if job.tool is Tool.GOLDEN_STICK:
        return _GOLDEN_STICK_DESCRIPTION, {**cache, **types}
    keys = {"model_quant_type": _main_type(job.policies), "version": _MODELSLIM_VERSION}
    return _MODELSLIM_DESCRIPTION, {**keys, "group_size": 0, **cache, **types}


def _main_type(policies: Mapping[str, Policy]) -> str:
    """The type of most quantized layers; that of the cache if it is all that is quantized."""
    kinds: Sequence[str] = [policy.kind for policy in policies.values() if policy.kind != FLOAT]
    return max(sorted(set(kinds)), key=kinds.count) if kinds else C8


def _copy_other_files(job: Job, output: Path) -> None:
    for file in sorted(job.checkpoint.folder.iterdir()):
        if file.is_file() and not file.name.endswith(_WEIGHTS) and file.name not in (REPORT, PAGE):
            shutil.copyfile(file, output / file.name)
    if HEAD_PART in job.parts():
        config = output / _CONFIG
        content = strict_json.parse_object(config.read_bytes(), str(config))
        content["tie_word_embeddings"] = False
        tensor_files.write_json(config, content)


def _quantized_bytes(shape: tuple[int, ...], policy: Policy) -> int:
    rows, columns = shape
    if policy.kind == WEIGHT_INT4:
        groups = columns // policy.group_size if policy.group_size else 1
        return rows * columns // 2 + rows * groups * 8
    return rows * columns + rows * _PER_ROW + columns * _PER_COLUMN
