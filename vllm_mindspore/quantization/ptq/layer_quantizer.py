# SPDX-License-Identifier: Apache-2.0
"""Quantizes one decoder layer: what calibration sees, factors chosen and folded, tensors made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from vllm_mindspore.quantization.description import FLOAT, Tool
from vllm_mindspore.quantization.ptq import fake_quantization, folding, smoothing
from vllm_mindspore.quantization.ptq.batches import Batch, Floats, Layer
from vllm_mindspore.quantization.ptq.kv_cache import CacheStatistics
from vllm_mindspore.quantization.ptq.linears import Linear, Tensors
from vllm_mindspore.quantization.ptq.policy import Policy, Suppression
from vllm_mindspore.quantization.ptq.quantized_group import GroupInput, GroupQuantizer
from vllm_mindspore.quantization.ptq.report import CacheReport, LinearReport
from vllm_mindspore.quantization.ptq.smoothing import Smoothing
from vllm_mindspore.quantization.ptq.statistics import InputStatistics
from vllm_mindspore.quantization.ptq.structure import Group

_SEARCH_TOKENS = 2048


@dataclass(frozen=True)
class Calibrated:
    """A batch with the input and the output of the layer, [T, hidden size] each."""

    batch: Batch
    hidden: Floats
    output: Floats


@dataclass
class Quantized:
    """A finished part of a model.

    Attributes:
        linears: module -> tensors by their last names.
        kinds: module -> its type.
        floats: tensor -> values, of all that is not quantized.
        reports: one per quantized layer.
        cache: module -> tensors of an int8 key/value cache, by their last names.
        cache_reports: one for keys and one for values.
    """

    linears: dict[str, Tensors]
    kinds: dict[str, str]
    floats: dict[str, Floats]
    reports: list[LinearReport]
    cache: dict[str, Tensors] = field(default_factory=dict)
    cache_reports: list[CacheReport] = field(default_factory=list)


def observe(
    layer: Layer,
    groups: Sequence[Group],
    inputs: Sequence[tuple[Batch, Floats]],
    policies: Mapping[str, Policy],
) -> tuple[dict[tuple[str, ...], InputStatistics], list[Calibrated]]:
    """Runs a float layer over all batches: the statistics of each group's input, as far as its
    policy needs them, and the outputs.

    Raises ValueError for an input that is not finite.
    """
    seen = {
        group.names: InputStatistics(
            group.in_features, products=policies[group.names[0]].needs_products
        )
        for group in groups
    }

    def note(names: tuple[str, ...], x: Floats) -> None:
        seen[names].add(x)

    layer.on_input = note
    found = [Calibrated(batch, hidden, layer.run(hidden, batch)) for batch, hidden in inputs]
    layer.on_input = None
    for names, statistics in seen.items():
        require_finite(names, statistics)
    return seen, found


def require_finite(names: Sequence[str], statistics: InputStatistics) -> None:
    """Raises ValueError for an input with NaN or infinity."""
    if not np.isfinite(statistics.largest()).all():
        raise ValueError(
            f"the input of {names[0]} is not finite in float32 for the calibration data; the "
            "checkpoint is damaged"
        )


class LayerQuantizer:
    """Quantizes decoder layers as policies say."""

    def __init__(self, policies: Mapping[str, Policy], tool: Tool, dtype: torch.dtype) -> None:
        self._policies = policies
        self._quantizer = GroupQuantizer(tool, dtype)
        self._dtype = dtype

    def quantize(
        self,
        layer: Layer,
        groups: Sequence[Group],
        statistics: Mapping[tuple[str, ...], InputStatistics],
        calibrated: Sequence[Calibrated],
    ) -> Quantized:
        """The layer's tensors; its arrays are changed."""
        inputs = {}
        for group in groups:
            seen = statistics[group.names]
            chosen, alpha = self._smoothing(layer, group, seen, calibrated)
            inputs[group.names] = GroupInput(seen, chosen, alpha)
        for group in groups:
            given = inputs[group.names]
            if given.alpha is not None:
                used = folding.fold(layer.arrays, group, given.smoothing, self._dtype)
                inputs[group.names] = GroupInput(given.statistics, used, given.alpha)
        return self.finish(layer.arrays, groups, inputs)

    def quantize_cache(
        self, layer: Layer, attention: str, channels: int, calibrated: Sequence[Calibrated]
    ) -> tuple[dict[str, Tensors], list[CacheReport]]:
        """Scales of what a layer caches, once `quantize` has smoothed it: what is smoothed into the
        input of the output projection is divided out of the values."""
        seen = CacheStatistics(channels)
        layer.on_cache = seen.add
        for part in calibrated:
            layer.run(part.hidden, part.batch)
        layer.on_cache = None
        return seen.quantized(attention)

    def finish(
        self,
        arrays: Mapping[str, Floats],
        groups: Sequence[Group],
        inputs: Mapping[tuple[str, ...], GroupInput],
    ) -> Quantized:
        """The tensors of layers whose inputs are smoothed already."""
        found = Quantized({}, {}, dict(arrays), [])
        for group in groups:
            policy = self._policies[group.names[0]]
            if policy.kind == FLOAT:
                continue
            layers = [
                Linear(
                    found.floats.pop(f"{name}.weight"),
                    found.floats.pop(f"{name}.bias", None),
                    self._dtype,
                )
                for name in group.names
            ]
            given = inputs[group.names]
            tensors, reports = self._quantizer.quantize(group.names, layers, policy, given)
            found.linears |= tensors
            found.kinds |= dict.fromkeys(group.names, policy.kind)
            found.reports += reports
        return found

    def _smoothing(
        self,
        layer: Layer,
        group: Group,
        seen: InputStatistics,
        calibrated: Sequence[Calibrated],
    ) -> tuple[Smoothing, float | None]:
        """The factors of a group's input, and their exponent; None where it is left alone."""
        policy = self._policies[group.names[0]]
        if policy.kind == FLOAT or policy.suppression is Suppression.NONE:
            return Smoothing.none(group.in_features), None
        weights = [layer.arrays[f"{name}.weight"] for name in group.names]
        shift = smoothing.centre(seen) if policy.suppression is Suppression.OS_PLUS else None
        largest = seen.largest() if shift is None else seen.high - shift
        x = smoothing.over_heads(largest, group.rows)
        w = smoothing.over_heads(smoothing.largest_weights(weights), group.rows)
        candidates = {
            alpha: Smoothing(smoothing.smooth_scale(x, w, alpha), shift) for alpha in policy.alphas
        }
        if len(candidates) == 1:
            alpha = policy.alphas[0]
        else:
            subset = _few(calibrated)
            losses = {
                alpha: self._loss(layer, group, seen, candidate, subset)
                for alpha, candidate in candidates.items()
            }
            alpha = min(losses, key=lambda tried: losses[tried])
        return candidates[alpha], alpha

    def _loss(
        self,
        layer: Layer,
        group: Group,
        seen: InputStatistics,
        candidate: Smoothing,
        calibrated: Sequence[Calibrated],
    ) -> float:
        """Mean squared error of the decoder layer's output when only this group is quantized."""
        policy = self._policies[group.names[0]]
        scale, _ = self._quantizer.scale(policy, seen, candidate)

        def replace(names: tuple[str, ...], x: Floats) -> Floats | None:
            if names != group.names:
                return None
            return candidate.undo(
                fake_quantization.activations(candidate.apply(x), policy.kind, scale)
            )

        names = [f"{name}.weight" for name in group.names]
        kept = {name: layer.arrays[name].copy() for name in names}
        for name, weight in kept.items():
            quantized = self._quantizer.weight(weight * candidate.scale, policy)
            layer.arrays[name][:] = quantized / candidate.scale
        layer.on_input = replace
        errors = [
            np.square(layer.run(part.hidden, part.batch) - part.output).mean(dtype=np.float64)
            for part in calibrated
        ]
        layer.on_input = None
        for name, weight in kept.items():
            layer.arrays[name][:] = weight
        return float(np.mean(errors))


def _few(calibrated: Sequence[Calibrated]) -> list[Calibrated]:
    """The first batches, up to a number of tokens: a search runs each many times."""
    found: list[Calibrated] = []
    tokens = 0
    for part in calibrated:
        if tokens >= _SEARCH_TOKENS:
            break
        found.append(part)
        tokens += len(part.hidden)
    return found
