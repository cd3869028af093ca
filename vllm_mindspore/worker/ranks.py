# SPDX-License-Identifier: Apache-2.0
"""How the worker of one rank finds the others, and what they tell each other about a step.

Rank 0 samples and tells the others the tokens, so that every rank's batch stays the same whatever
the sampler does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from vllm.distributed.parallel_state import GroupCoordinator, get_tp_group

from vllm_mindspore.device.compute_device import ComputeDevice
from vllm_mindspore.device.kernel_library import KernelLibrary
from vllm_mindspore.device.rank_group import RankGroup

_NOTHING = -1


def start(device: ComputeDevice) -> tuple[KernelLibrary, RankGroup]:
    """Starts the device of this process, and joins it to the ranks of vLLM's tensor-parallel group,
    which must have been made."""
    group = get_tp_group()
    index, count, exchange = group.rank_in_group, group.world_size, _Gloo(group)
    library = device.start(index, count, exchange)
    return library, RankGroup.form(library, index, count, exchange)


class _Gloo:
    """The slow and general way to the other ranks."""

    def __init__(self, group: GroupCoordinator) -> None:
        self._group = group

    def all_gather(self, value: object) -> list[Any]:
        """By vLLM's own group on hosts."""
        found: list[Any] = [None] * self._group.world_size
        torch.distributed.all_gather_object(found, value, self._group.cpu_group)
        return found


@contextlib.contextmanager
def told(group: RankGroup) -> Iterator[None]:
    """Tells the other ranks if this one fails: they would wait for it."""
    try:
        yield
    except BaseException as error:
        group.stop(f"{type(error).__name__}: {error}")
        raise


def share_tokens(
    group: RankGroup, tokens: list[list[int]] | None, drafts: list[list[int]]
) -> list[list[int]]:
    """The tokens that rank 0 sampled for each row of the batch; `tokens` is given there alone.

    drafts: those of each row, of which at most one more token than there are is sampled.
    """
    most = 1 + max((len(draft) for draft in drafts), default=0)
    table = np.full((len(drafts), most), _NOTHING, np.int64)
    for row, sampled in enumerate(tokens or ()):
        table[row, : len(sampled)] = sampled
    group.broadcast(table)
    return [[token for token in row if token != _NOTHING] for row in table.tolist()]
