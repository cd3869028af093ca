# SPDX-License-Identifier: Apache-2.0
"""MindSpore's world of ranks, which NPUs need, formed by real processes of this machine.

What carries the sums is another library here: ours, where NPUs have HCCL.
"""

from __future__ import annotations

import socket
import time
from typing import Any

import mindspore as ms
import numpy as np
import psutil
import pytest
from mindspore import Tensor, nn

from ops.tests import ranks
from ops.tests.conftest import _prime_numpy
from ops.tests.native import native_path
from vllm_mindspore import envs
from vllm_mindspore.device import cluster
from vllm_mindspore.device.cluster import Cluster, world_group
from vllm_mindspore.device.rank_group import RankGroup
from vllm_mindspore.model_executor.layers.reduction import Reduced

COUNT, WIDTH = 2, 8
END_SECONDS = 20.0  # the scheduler's own are 5


class Half(nn.Cell):
    """A layer whose outputs are parts of sums."""

    def construct(self, x: Tensor, slots: None = None) -> Tensor:
        """x [T, N] -> [T, N]."""
        return x * 0.5


class Others:
    """The exchange of ranks that have a group already, for the scheduler's port."""

    def __init__(self, group: RankGroup) -> None:
        self._group = group

    def all_gather(self, value: Any) -> list[Any]:
        port, problem = value
        assert not problem
        return [(port, problem) for port in self._group.all_gather(np.array([port])).tolist()]


def rows(index: int) -> np.ndarray:
    return np.random.default_rng(index).standard_normal((3, WIDTH)).astype(np.float32)


def formed(group: RankGroup) -> Cluster:
    """In the order of a worker: the device, then the world, then tensors."""
    envs.set_op_plugin(native_path())
    ms.set_device("CPU")
    found = Cluster.form(group.index, group.count, Others(group))
    ms.set_context(mode=ms.GRAPH_MODE, jit_config={"jit_level": "O0"})
    _prime_numpy()
    return found


def body(group: RankGroup) -> dict[str, Any]:
    """What AllReduce of a model's layer is, and computes, in a dynamic graph."""
    world = formed(group)
    layer = Reduced(Half())
    layer.set_inputs(Tensor(shape=[None, WIDTH], dtype=ms.float32))
    return {
        "world": world_group(),
        "group": layer.reduce.group,
        "sum": layer(Tensor(rows(group.index))).asnumpy(),
        "scheduler": world.scheduler.pid if world.scheduler else None,
    }


def ends(pid: int) -> bool:
    """Whether a process is gone, or becomes so soon."""
    deadline = time.monotonic() + END_SECONDS
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_graphs_of_a_world_add_up_in_its_group() -> None:
    """Ranks that have answered are killed: nothing tells the scheduler."""
    found = ranks.run(COUNT, body, "spawn")
    for of_rank in found:
        assert isinstance(of_rank, dict), of_rank
        assert of_rank["group"] == of_rank["world"] == "mccl_world_group"
        np.testing.assert_array_equal(of_rank["sum"], 0.5 * rows(0) + 0.5 * rows(1))
    assert ends(found[0]["scheduler"])
    assert found[1]["scheduler"] is None


class Alone:
    """The exchange of rank 0, which hears from nobody."""

    def all_gather(self, value: Any) -> list[Any]:
        return [value]


def test_a_port_that_is_taken_is_an_error_and_not_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """MindSpore itself would have every rank wait for half an hour."""
    monkeypatch.setattr(cluster, "_ATTEMPTS", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(cluster, "_free_port", lambda: taken.getsockname()[1])
        with pytest.raises(RuntimeError, match=r"scheduler .* ended with exit code \d+ 1 times"):
            Cluster.form(0, 2, Alone())
