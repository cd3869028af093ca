# SPDX-License-Identifier: Apache-2.0
"""Quantizes the linear layers of one input and measures what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from vllm_mindspore.quantization.description import STATICS, WEIGHT_INT4, Tool
from vllm_mindspore.quantization.primitives import ActivationScale
from vllm_mindspore.quantization.ptq import fake_quantization, linears, sparsifiers
from vllm_mindspore.quantization.ptq.linears import Linear, Tensors
from vllm_mindspore.quantization.ptq.policy import Policy
from vllm_mindspore.quantization.ptq.report import LinearReport, Spread
from vllm_mindspore.quantization.ptq.smoothing import Smoothing
from vllm_mindspore.quantization.ptq.statistics import InputStatistics

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GroupInput:
    """The input of a group: what calibration saw of it, and how it is changed.

    `smoothing` has been folded into the weights already, and its scale into what computes the
    input; a shift is taken off the input when it is quantized.
    """

    statistics: InputStatistics
    smoothing: Smoothing
    alpha: float | None


class GroupQuantizer:
    """Quantizes for one tool and one model's dtype."""

    def __init__(self, tool: Tool, dtype: torch.dtype) -> None:
        self._tool = tool
        self._dtype = dtype

    def scale(
        self, policy: Policy, given: InputStatistics, smoothing: Smoothing
    ) -> tuple[ActivationScale | None, bool]:
        """Of static activations, and whether their range was widened; None for others."""
        if policy.kind not in STATICS:
            return None, False
        low, high = smoothing.range(given)
        return fake_quantization.static_scale(low, high, self._tool, self._dtype)

    def weight(self, weight: Floats, policy: Policy) -> Floats:
        """A weight [N, K] after a round trip through its codes."""
        tensors = self._weight_tensors(Linear(weight, None, self._dtype), policy)
        return linears.float_weight(tensors, policy.kind)

    def quantize(
        self, names: Sequence[str], layers: Sequence[Linear], policy: Policy, given: GroupInput
    ) -> tuple[dict[str, Tensors], list[LinearReport]]:
        """Tensors and a report of each layer; its weights are smoothed.

        Raises ValueError naming the layer for a folded bias that int32 does not hold.
        """
        scale, widened = self.scale(policy, given.statistics, given.smoothing)
        shift = _scaled_shift(given.smoothing)
        rows = given.smoothing.apply(given.statistics.rows())
        seen = fake_quantization.activations(rows, policy.kind, scale)
        found, reports = {}, []
        for name, dense in zip(names, layers, strict=True):
            layer = _sparsified(dense, policy, given)
            try:
                tensors = self._tensors(layer, policy, scale, shift)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            restored = linears.float_weight(tensors, policy.kind)
            found[name] = tensors
            reports.append(
                LinearReport(
                    name=name,
                    type=policy.kind,
                    shape=layer.weight.shape,
                    bytes_before=_float_bytes(layer, self._dtype),
                    bytes_after=_stored_bytes(tensors, self._tool, self._dtype),
                    weight_sqnr_db=fake_quantization.sqnr(layer.exact, restored),
                    output_sqnr_db=fake_quantization.sqnr(rows @ layer.exact.T, seen @ restored.T),
                    weight_scale=Spread.of(tensors["weight_scale"]),
                    input_scale=scale.scale if scale else None,
                    input_offset=scale.offset if scale else None,
                    input_range_widened=widened,
                    outlier_suppression=policy.suppression.value,
                    alpha=given.alpha,
                    smoothing=Spread.of(given.smoothing.scale),
                    zeros=_zeros(tensors) if policy.sparsity else None,
                )
            )
        return found, reports

    def _tensors(
        self, layer: Linear, policy: Policy, scale: ActivationScale | None, shift: Floats | None
    ) -> Tensors:
        if scale is not None:
            return linears.static(layer, scale, self._tool, shift)
        return self._weight_tensors(layer, policy)

    def _weight_tensors(self, layer: Linear, policy: Policy) -> Tensors:
        if policy.kind == WEIGHT_INT4:
            return linears.int4(layer, policy.group_size)
        return linears.dynamic(layer, self._tool)


def _sparsified(layer: Linear, policy: Policy, given: GroupInput) -> Linear:
    """The layer with zeros where its policy asks for them."""
    if policy.sparsity is None:
        return layer
    sparse = sparsifiers.sparsified(
        layer.weight, policy.sparsity, given.statistics, given.smoothing
    )
    return Linear(sparse, layer.bias, layer.dtype, layer.weight)


def _zeros(tensors: Tensors) -> float:
    """Share of weight codes that are zero."""
    return float(np.mean(tensors["weight"] == 0))


def _scaled_shift(smoothing: Smoothing) -> Floats | None:
    """What is taken off the input that the layer before has divided already."""
    return None if smoothing.shift is None else smoothing.shift / smoothing.scale


def _float_bytes(layer: Linear, dtype: torch.dtype) -> int:
    numbers = layer.weight.size + (0 if layer.bias is None else layer.bias.size)
    return int(numbers) * dtype.itemsize


def _stored_bytes(tensors: Tensors, tool: Tool, dtype: torch.dtype) -> int:
    return sum(
        values.size * dtype.itemsize if part in linears.MODEL_DTYPE[tool] else values.nbytes
        for part, values in tensors.items()
    )
