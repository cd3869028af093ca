# SPDX-License-Identifier: Apache-2.0
"""The finished sparse checkpoint compressed for a number of ranks (W8A8SC), with its report."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vllm_mindspore.conversion import convert
from vllm_mindspore.conversion.convert import Summary
from vllm_mindspore.model_executor.model_loader import strict_json
from vllm_mindspore.quantization.description import FLOAT, STATICS
from vllm_mindspore.quantization.ptq import output_folder, report, report_page, tensor_files
from vllm_mindspore.quantization.ptq.job import Job
from vllm_mindspore.quantization.ptq.output_folder import Evaluate
from vllm_mindspore.quantization.ptq.policy import Suppression
from vllm_mindspore.quantization.ptq.report import NOT_MEASURED, Evaluation
from vllm_mindspore.quantization.ptq.work_folder import WorkFolder
from vllm_mindspore.quantization.sharding import Rank

_WHOLE, _COMPRESSED = "whole", "compressed"


def check(job: Job, ranks: int) -> None:
    """Before any work: raises ValueError for what compressed files have no place for, and for a
    number of ranks that does not divide the model."""
    if ranks < 1:
        raise ValueError(f"--tensor-parallel-size {ranks}: expected a number from 1")
    if job.int8_cache:
        raise ValueError("w8a8sc files have no place for an int8 key/value cache: use w8a8s")
    for name, policy in job.policies.items():
        if policy.kind not in (FLOAT, *STATICS):
            raise ValueError(
                f"{name} is to be {policy.kind}; beside sparse layers, those of w8a8sc may be w8a8 "
                "or float"
            )
        if policy.suppression is Suppression.OS_PLUS:
            raise ValueError(
                "outlier suppression 'os+' shifts inputs, which w8a8sc files have no place for: "
                "use another method, or w8a8s"
            )
    job.checkpoint.config.of_rank(Rank(0, ranks))


def write(
    job: Job,
    work: WorkFolder,
    options: Mapping[str, Any],
    calibration: Mapping[str, Any],
    folder: Path,
    ranks: int,
    finished: Callable[[str], None],
    evaluate: Evaluate | None = None,
) -> None:
    """Makes `folder` of the finished parts; it appears at once, complete. `finished` is called with
    each part that is compressed, `evaluate` with the compressed checkpoint before it appears."""
    whole, compressed = work.folder / _WHOLE, work.folder / _COMPRESSED
    # Of a run that was interrupted here.
    for left in (whole, compressed, convert.work_place(compressed)):
        shutil.rmtree(left, ignore_errors=True)
    output_folder.write(job, work, options, calibration, whole, work.folder)
    summary = convert.compress(whole, compressed, ranks, finished)
    evaluation = NOT_MEASURED if evaluate is None else evaluate(compressed)
    _write_report(whole, compressed, summary, ranks, evaluation)
    folder.parent.mkdir(parents=True, exist_ok=True)
    compressed.replace(folder)


def parts(job: Job) -> int:
    """How often `finished` is called."""
    return job.checkpoint.config.num_layers + 1


def _write_report(
    whole: Path, folder: Path, summary: Summary, ranks: int, evaluation: Evaluation
) -> None:
    """The report of the whole checkpoint, with what compressing changed and what was measured."""
    file = whole / output_folder.REPORT
    content = strict_json.parse_object(file.read_bytes(), str(file))
    content["compression"] = report.compression(
        ranks,
        [
            {
                "rank": layer.rank,
                "name": layer.module,
                "shape": [layer.outputs, layer.inputs],
                "zeros": layer.sparsity,
                "bytes": layer.stream_bytes + layer.index_bytes,
                "ratio": layer.ratio,
            }
            for layer in summary.layers
        ],
    )
    content["sizes"]["bytes_after"] = summary.bytes_after
    content["notes"] += summary.notes
    content["evaluation"] = dict(evaluation)
    tensor_files.write_json(folder / output_folder.REPORT, content)
    (folder / output_folder.PAGE).write_text(report_page.page(content), encoding="utf-8")
