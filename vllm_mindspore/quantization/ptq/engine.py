# SPDX-License-Identifier: Apache-2.0
"""Quantizes a model decoder layer by decoder layer: of the weights, one layer is in memory.

Each layer is calibrated with the outputs of the float layers before it. Finished layers are kept in
a WorkFolder; work that goes on computes their float outputs again.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import asdict

import torch

from vllm_mindspore.device.runtime import start_runtime
from vllm_mindspore.device.threads import threads_per_rank
from vllm_mindspore.model_executor.models.layout import HEAD
from vllm_mindspore.quantization.ptq import layer_quantizer, stored
from vllm_mindspore.quantization.ptq.batches import Batch, Floats, batches
from vllm_mindspore.quantization.ptq.calibration_layer import (
    CalibrationLayers,
    one_operator_at_a_time,
)
from vllm_mindspore.quantization.ptq.job import HEAD_PART, Job
from vllm_mindspore.quantization.ptq.layer_quantizer import LayerQuantizer, Quantized
from vllm_mindspore.quantization.ptq.quantized_group import GroupInput
from vllm_mindspore.quantization.ptq.smoothing import Smoothing
from vllm_mindspore.quantization.ptq.statistics import InputStatistics
from vllm_mindspore.quantization.ptq.structure import attention_name, head_group, layer_groups
from vllm_mindspore.quantization.ptq.work_folder import WorkFolder

Hidden = list[tuple[Batch, Floats]]

_BATCH_TOKENS = 1024


def run(job: Job, work: WorkFolder, finished: Callable[[str], None]) -> None:
    """Makes the parts that are not finished; `finished` is called after each.

    Raises ValueError for weights or inputs that are not finite, and for what an integer type does
    not hold.
    """
    if all(work.has(part) for part in job.parts()):
        return
    start_runtime(threads_per_rank(1))
    with one_operator_at_a_time():
        _Run(job, work, finished).all_parts()


class _Run:
    """One pass over the model."""

    def __init__(self, job: Job, work: WorkFolder, finished: Callable[[str], None]) -> None:
        self._job, self._work, self._finished = job, work, finished
        self._checkpoint = job.checkpoint
        longest = max(map(len, job.samples))
        self._layers = CalibrationLayers(job.checkpoint, longest)
        self._quantizer = LayerQuantizer(job.policies, job.tool, job.checkpoint.dtype)

    def all_parts(self) -> None:
        hidden: Hidden = [
            (batch, self._checkpoint.rows(batch.token_ids))
            for batch in batches(self._job.samples, _BATCH_TOKENS)
        ]
        for index, part in enumerate(self._job.parts()):
            if part == HEAD_PART:
                self._head(hidden)
            else:
                hidden = self._layer(index, part, hidden)
            # MindSpore's cells refer to themselves: eight layers were alive at a time without it.
            gc.collect()

    def _layer(self, index: int, part: str, hidden: Hidden) -> Hidden:
        layer = self._layers.layer(index)
        if self._work.has(part):
            return [(batch, layer.run(values, batch)) for batch, values in hidden]
        groups = layer_groups(self._checkpoint.config, index)
        statistics, calibrated = layer_quantizer.observe(layer, groups, hidden, self._job.policies)
        replaces = list(layer.arrays)
        made = self._quantizer.quantize(layer, groups, statistics, calibrated)
        if self._job.int8_cache:
            name, channels = attention_name(index), self._checkpoint.config.attention.kv_size
            cache = self._quantizer.quantize_cache(layer, name, channels, calibrated)
            made.cache, made.cache_reports = cache
        self._keep(part, made, replaces)
        return [(entry.batch, entry.output) for entry in calibrated]

    def _head(self, hidden: Hidden) -> None:
        if self._work.has(HEAD_PART):
            return
        config = self._checkpoint.config
        group = head_group(config)
        statistics = InputStatistics(group.in_features)
        for _, values in hidden:
            statistics.add(self._layers.final_norm(values))
        layer_quantizer.require_finite(group.names, statistics)
        name, shape = self._checkpoint.head_name, (config.vocab_size, config.hidden_size)
        arrays = {f"{HEAD}.weight": self._checkpoint.single(name, shape)}
        given = GroupInput(statistics, Smoothing.none(group.in_features), None)
        found = self._quantizer.finish(arrays, [group], {group.names: given})
        self._keep(HEAD_PART, found, [f"{HEAD}.weight"])

    def _keep(self, part: str, found: Quantized, replaces: list[str]) -> None:
        job = self._job
        tensors = stored.tensors(found, job.tool, job.checkpoint.dtype, self._dtype_of)
        content = {
            "types": stored.types(found, job.tool),
            "replaces": replaces,
            "linears": [asdict(report) for report in found.reports],
            "cache": [asdict(report) for report in found.cache_reports],
        }
        self._work.add(part, tensors, content)
        self._finished(part)

    def _dtype_of(self, name: str) -> torch.dtype:
        return self._checkpoint.any(name).dtype
