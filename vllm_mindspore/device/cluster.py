# SPDX-License-Identifier: Apache-2.0
"""MindSpore's own world of ranks, in which HCCL runs its collectives on NPUs.

On CPU nobody needs it, since our kernels find the other ranks by themselves (`RankGroup`); tests
form it there all the same, with the group that MindSpore has for hosts.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import psutil
from mindspore import communication
from vllm.logger import init_logger

from vllm_mindspore import envs
from vllm_mindspore.device.rank_group import Exchange

logger = init_logger("vllm.vllm_mindspore.device")

_HOST = "127.0.0.1"
_ATTEMPTS = 3  # another process may take the port before the scheduler does
_POLL_SECONDS = 0.2


class Cluster:
    """This process in MindSpore's world of the ranks of one engine.

    Rank i of the engine is rank i of the world, so the world's group, which AllReduce takes unless
    told otherwise, is the model's. Every rank is a worker of a dynamic cluster, and rank 0 starts
    one process more, the scheduler, by which they find each other and which ends with them
    (https://www.mindspore.cn/tutorials/en/master/parallel/dynamic_cluster.html).
    """

    def __init__(self, scheduler: subprocess.Popen[bytes] | None) -> None:
        self.scheduler = scheduler
        """On rank 0."""

    @classmethod
    def form(cls, index: int, count: int, exchange: Exchange) -> Cluster:
        """Every rank must call it, after it has chosen its device and before it makes a tensor.

        Raises:
            RuntimeError: on every rank, if the scheduler does not start; or MindSpore cannot find
                the others, or numbers the ranks in another way.
        """
        scheduler, port, problem = None, 0, ""
        if index == 0:
            try:
                scheduler, port = _start_scheduler(count)
            except RuntimeError as error:
                problem = str(error)
        port, problem = exchange.all_gather((port, problem))[0]
        if problem:
            raise RuntimeError(problem)
        envs.set_variables(_variables("MS_WORKER", count, port) | {"MS_NODE_ID": str(index)})
        communication.init()
        found = communication.get_rank(), communication.get_group_size()
        if found != (index, count):
            raise RuntimeError(
                f"expected to be rank {index} of {count} in MindSpore's world; found rank "
                f"{found[0]} of {found[1]}"
            )
        logger.info("Rank %d of %d in MindSpore's %s", index, count, world_group())
        return cls(scheduler)


def world_group() -> str:
    """The name of the group of all ranks, hccl_world_group on NPUs."""
    return str(communication.GlobalComm.WORLD_COMM_GROUP)


def _start_scheduler(count: int) -> tuple[subprocess.Popen[bytes], int]:
    """The process, which listens, and its port. RuntimeError if it ends instead."""
    for _ in range(_ATTEMPTS):
        port = _free_port()
        program = [sys.executable, "-m", "vllm_mindspore.device.scheduler", str(os.getpid())]
        scheduler = subprocess.Popen(
            program,
            env=envs.of_child(_variables("MS_SCHED", count, port)),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C is the server's to handle
        )
        while scheduler.poll() is None:
            if _listens(scheduler.pid, port):
                return scheduler, port
            time.sleep(_POLL_SECONDS)
    raise RuntimeError(
        f"the scheduler of MindSpore's cluster ended with exit code {scheduler.returncode} "
        f"{_ATTEMPTS} times before it listened; what it said is above"
    )


def _listens(process: int, port: int) -> bool:
    """Whether this one does, and not another that was faster."""
    try:
        found = psutil.Process(process).net_connections("tcp")
    except psutil.Error:
        return False  # it has just ended
    return any(at.status == psutil.CONN_LISTEN and at.laddr.port == port for at in found)


def _variables(role: str, count: int, port: int) -> dict[str, str]:
    return {
        "MS_ROLE": role,
        "MS_WORKER_NUM": str(count),
        "MS_SCHED_HOST": _HOST,
        "MS_SCHED_PORT": str(port),
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((_HOST, 0))
        return int(listener.getsockname()[1])
