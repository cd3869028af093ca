# SPDX-License-Identifier: Apache-2.0
"""vLLM's Ray executor in a cluster that has a place for every worker: joined, or started here.

vLLM asks Ray for one unit of the platform's resource per worker and for the ids of those units,
which Ray hands out for the resources it knows only. Ours is therefore NPU, on CPU too: there a unit
is a place for one worker. No machine without Ascend devices announces it, hence this module.
"""

from __future__ import annotations

import json
import logging
import socket
from pathlib import Path

import ray
from ray._private.services import get_ray_address_from_environment  # what ray.init() asks
from vllm.config import ParallelConfig
from vllm.logger import init_logger
from vllm.platforms import current_platform
from vllm.v1.executor.ray_executor_v2 import RayExecutorV2

from vllm_mindspore import envs

logger = init_logger(f"vllm.{__name__}")  # vLLM shows loggers below its own

# Steps travel through shared memory of vLLM; Ray would reserve 30 % of the machine for its own.
_OBJECT_STORE_BYTES = 128 << 20
_ANSWER_SECONDS = 5.0
_SHARED_MEMORY = Path("/dev/shm")


class RayExecutor(RayExecutorV2):
    """Starts and ends the cluster with the engine, unless there is one to join.

    Raises:
        ValueError: the cluster does not have the resource, or RAY_ADDRESS is no address.
        ConnectionError: nothing listens at RAY_ADDRESS.
    """

    _started_cluster = False
    _makes_group = False

    def _init_executor(self) -> None:
        parallel = self.parallel_config
        self._started_cluster = _join_or_start(parallel)
        self._makes_group = not (parallel.placement_group or ray.util.get_current_placement_group())
        try:
            super()._init_executor()
            self._unlink_queues()
        except BaseException:
            self.shutdown()
            raise

    def _join_monitor_thread(self) -> None:
        """Ends the workers first: the thread waits for the end of one, 5 s at a time."""
        for handle in getattr(self, "ray_worker_handles", ()):
            ray.kill(handle.actor)
        super()._join_monitor_thread()

    def _unlink_queues(self) -> None:
        """Take the names of what workers made: both sides have it open, and Ray kills workers
        together with the process that would have removed it."""
        for queue in self.response_mqs:
            if queue.buffer is not None:  # else the worker is on another machine
                (_SHARED_MEMORY / queue.buffer.shared_memory.name).unlink()

    def shutdown(self) -> None:
        """Ends the workers and gives back what was taken of Ray. Idempotent."""
        super().shutdown()
        parallel = self.parallel_config
        started, self._started_cluster = self._started_cluster, False
        if started:
            ray.shutdown()
        elif self._makes_group and parallel.placement_group and ray.is_initialized():
            ray.util.remove_placement_group(parallel.placement_group)
            parallel.placement_group = None


def _join_or_start(parallel: ParallelConfig) -> bool:
    """Connect this process to Ray; whether that took a cluster of our own."""
    envs.apply_ray_defaults()
    if not ray.is_initialized() and not _join(parallel):
        _start(parallel)
        return True
    if parallel.placement_group is None:
        _require_places(parallel.world_size)
    return False


def _join(parallel: ParallelConfig) -> bool:
    """Join the cluster at RAY_ADDRESS, or that of `ray start` on this machine if there is one.

    Not by Ray's `auto`, which also finds the clusters that other engines have started.
    """
    address = get_ray_address_from_environment(None, None)
    if address is None or address == "local":
        return False
    if not _listens(address):  # Ray tries for minutes
        if envs.text("RAY_ADDRESS"):
            raise ConnectionError(
                f"RAY_ADDRESS names {address}, where no Ray cluster listens. Start it, or unset "
                "RAY_ADDRESS: the engine then starts a cluster of its own."
            )
        logger.warning("The Ray cluster that was started at %s is gone.", address)
        return False
    # Without the address: only for a cluster it finds by itself does Ray take its token.
    ray.init(runtime_env=parallel.ray_runtime_env)
    return True


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    if "://" in address or not port.isdecimal():
        raise ValueError(f"RAY_ADDRESS={address}: expected HOST:PORT, as `ray start` prints it.")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS):
            return True
    except OSError:
        return False


def _start(parallel: ParallelConfig) -> None:
    """A cluster of this process alone: it ends with it, even when it is killed."""
    logger.info("No Ray cluster is running on this machine: starting one for this engine.")
    # It reports as an error that the type of the devices is unknown: there are none.
    logging.getLogger("ray._private.accelerators.npu").setLevel(logging.CRITICAL)
    ray.init(
        address="local",
        num_cpus=0,  # the kernels have the cores; Ray would start idle processes for them
        num_gpus=0,
        include_dashboard=False,
        resources={current_platform.ray_device_key: parallel.world_size},
        object_store_memory=_OBJECT_STORE_BYTES,
        runtime_env=parallel.ray_runtime_env,
    )


def _require_places(ranks: int) -> None:
    key = current_platform.ray_device_key
    found = ray.cluster_resources().get(key, 0)
    if found < ranks:
        resources = json.dumps({key: ranks})
        raise ValueError(
            f"The Ray cluster has {found:g} of the resource {key}, and each of the {ranks} workers "
            "of this engine takes one. Without Ascend devices Ray must be told: start it with "
            f"`ray start --head --resources='{resources}'`, or in a script with "
            f"ray.init(resources={resources})."
        )
