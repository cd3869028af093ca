# SPDX-License-Identifier: Apache-2.0
"""Tensors that several schemes have, read and checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from vllm_mindspore import bridge
from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.schemes.base import Projections, TensorSource

if TYPE_CHECKING:
    from mindspore import Parameter

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def weights(source: TensorSource, projections: Projections) -> tuple[Parameter, ...]:
    """The int8 weights [N, K], mapped from the file."""
    inner = projections.in_features
    return tuple(
        bridge.parameter(
            f"{name}.weight", source.stored(f"{name}.weight", [(size, inner)], [torch.int8])
        )
        for name, size in projections.parts()
    )


def output_scales(
    source: TensorSource, projections: Projections, part: str
) -> tuple[Parameter, ...]:
    """Per-channel scales as float32 [N], from [N] or [N, 1], floats or the int64 form."""
    return tuple(
        bridge.parameter(f"{name}.{part}", output_scale(source, f"{name}.{part}", size))
        for name, size in projections.parts()
    )


def output_scale(source: TensorSource, full: str, size: int) -> torch.Tensor:
    """One of them."""
    stored = source.stored(full, [(size,), (size, 1)], [*FLOATS, torch.int64])
    values = _decoded(stored.reshape(size))
    require(source, full, values, "finite numbers", torch.isfinite)
    return values


def _decoded(stored: torch.Tensor) -> torch.Tensor:
    if stored.dtype == torch.int64:
        return torch.from_numpy(primitives.decode_deq_scale(stored.numpy()).copy())
    return stored.to(torch.float32)


def require(
    source: TensorSource,
    name: str,
    values: torch.Tensor,
    expected: str,
    holds: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """Notes how many of the values do not hold what is expected of each."""
    wrong = int((~holds(values)).sum())
    if wrong:
        source.note(f"tensor {name}: expected {expected}, found {wrong} others of {values.numel()}")


def converted(source: TensorSource, name: str, stored: torch.Tensor) -> torch.Tensor:
    """A tensor of floats in the model's dtype, which all of them must fit."""
    found = stored.to(source.dtype)
    if found.dtype != stored.dtype:
        require(source, name, found, f"finite numbers in {source.dtype}", torch.isfinite)
    return found


def is_positive(values: torch.Tensor) -> torch.Tensor:
    """Whether each is a finite number above 0."""
    return torch.isfinite(values) & (values > 0)


def shared(
    source: TensorSource,
    projections: Projections,
    part: str,
    read: Callable[[str], torch.Tensor],
) -> torch.Tensor:
    """A tensor that belongs to the input, which all projections repeat: they must agree."""
    first, *others = projections.names
    values = read(f"{first}.{part}")
    for name in others:
        if not torch.equal(read(f"{name}.{part}"), values):
            source.note(
                f"tensor {name}.{part}: expected the values of {first}.{part}, since both layers "
                "have the same input; found others"
            )
    return values


def ignore(
    source: TensorSource, projections: Projections, part: str, *, zeros: bool = False
) -> None:
    """Checks an output's tensor that no kernel needs, where there is one; it may have to be 0."""
    for name, size in projections.parts():
        full = f"{name}.{part}"
        if not source.has(full):
            continue
        kinds = [*FLOATS, torch.int32, torch.int8]
        stored = source.stored(full, [(size,), (size, 1)], kinds)
        if zeros:
            require(source, full, stored, "zeros (symmetric weights)", lambda v: v == 0)
