# SPDX-License-Identifier: Apache-2.0
"""Golden Stick's PTQ object on our models: configure, apply, save."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]
from vllm.logger import init_logger

from vllm_mindspore.quantization.description import FLOAT, Tool
from vllm_mindspore.quantization.ptq import configured_policy, datasets, engine, output_folder
from vllm_mindspore.quantization.ptq.config import PTQConfig
from vllm_mindspore.quantization.ptq.job import Job
from vllm_mindspore.quantization.ptq.network import NativeNetwork
from vllm_mindspore.quantization.ptq.policy import resolve
from vllm_mindspore.quantization.ptq.work_folder import WorkFolder

logger = init_logger("vllm.vllm_mindspore.ptq")


class PTQ:
    """Post-training quantization of a network from `load_network`.

    Attributes:
        decoder_layer_types: classes of decoder layers. May stay empty: our networks know theirs;
            one that is none of the network's is an error.
    """

    def __init__(
        self,
        config: PTQConfig | None = None,
        layer_policies: OrderedDict[str, PTQConfig | None] | None = None,
    ) -> None:
        """`layer_policies`: pattern of module names -> configuration, None to leave them float.

        Raises ValueError for a configuration that is not supported, by name.
        """
        self.decoder_layer_types: list[type[Any]] = []
        self._layer_policies = layer_policies
        self._configure(PTQConfig() if config is None else config)

    def set_ptq_config(self, **changes: Any) -> None:
        """Other values of the configuration. Raises ValueError as the constructor does."""
        unknown = sorted(changes.keys() - vars(self._config).keys())
        if unknown:
            raise ValueError(f"PTQConfig has no {', '.join(unknown)}")
        self._configure(PTQConfig(**(vars(self._config) | changes)))

    def apply(
        self,
        network: NativeNetwork,
        network_helper: Any = None,
        datasets: Any = None,
        framework: str | None = None,
        **kwargs: Any,
    ) -> NativeNetwork:
        """Calibrates and quantizes; `save` writes the result.

        The data set, of rows with `input_ids`, may stand second, as in the users' script, or third,
        as in Golden Stick 1.4. Raises ValueError for a network that is not ours, a missing data
        set, helpers and frameworks, and policies that match nothing.
        """
        _require_native(network)
        samples = _samples(network_helper, datasets, framework, kwargs)
        self._check_layer_types(network)
        policies = resolve(network.checkpoint.config, self._choice)
        cache = self._choice.int8_cache
        job = Job(network.checkpoint, policies, samples, Tool.GOLDEN_STICK, cache)
        place = tempfile.TemporaryDirectory(prefix="vllm-mindspore-ptq-")
        work = WorkFolder(Path(place.name), job.fingerprint())
        with tqdm(total=len(job.parts()), desc="Quantizing", unit="layer") as bar:
            engine.run(job, work, lambda part: bar.update())
        network.made = job, work, place
        return network

    def convert(self, network: NativeNetwork, ckpt_path: str = "") -> NativeNetwork:
        """The network itself: nothing is left to convert after `apply`."""
        return network

    def fake_quant(self, network: NativeNetwork) -> NativeNetwork:
        """Raises ValueError: save the network and serve it instead."""
        raise ValueError(
            "fake_quant is not supported; save the network and run it: ptq.save(network, DIR), "
            "LLM(model=DIR)"
        )

    def summary(self, network: NativeNetwork) -> str:
        """A table of layers and how they are quantized, also logged.

        Raises ValueError before `apply`.
        """
        job, _, _ = _made(network)
        names = {name: policy.kind for name, policy in job.policies.items() if policy.kind != FLOAT}
        width = max(map(len, names), default=0)
        lines = [f"{name:<{width}}  {_described(kind)}" for name, kind in names.items()]
        if job.int8_cache:
            lines.append("key/value cache  C8-per_channel")
        table = "\n".join(lines)
        logger.info("Quantized layers:\n%s", table)
        return table

    def save(self, network: NativeNetwork, folder: str | Path) -> None:
        """See the function `save`."""
        save(network, folder)

    def _configure(self, config: PTQConfig) -> None:
        for pattern, policy in (self._layer_policies or {}).items():
            if policy is not None and (policy.mode, policy.backend) != (
                config.mode,
                config.backend,
            ):
                logger.warning(
                    "layer_policies[%r]: mode and backend are those of the network's config",
                    pattern,
                )
                policy.mode, policy.backend = config.mode, config.backend
        self._config = config
        self._choice = configured_policy.choice(config, self._layer_policies)

    def _check_layer_types(self, network: NativeNetwork) -> None:
        own = network.decoder_layer_type
        strange = [kind for kind in self.decoder_layer_types if not issubclass(own, kind)]
        if strange:
            raise ValueError(
                f"decoder_layer_types: {', '.join(kind.__name__ for kind in strange)}: the network "
                f"has no such layers; its own are {own.__name__} (network.decoder_layer_type)"
            )


def save(network: NativeNetwork, folder: str | Path) -> None:
    """Writes what PTQ.apply made as a checkpoint that can be served.

    Raises ValueError before `apply`, for a folder that holds something, and for a full disk.
    """
    job, work, _ = _made(network)
    target = Path(folder)
    output_folder.check_place(target, job.checkpoint.folder)
    output_folder.check_room(job, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    calibration = {
        "source": "dataset",
        "samples": len(job.samples),
        "tokens": sum(map(len, job.samples)),
    }
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        output_folder.write(job, work, {}, calibration, target, Path(scratch))


def _require_native(network: Any) -> None:
    if not isinstance(network, NativeNetwork):
        raise ValueError(
            f"PTQ.apply: expected a network from ptq.load_network(folder), found a "
            f"{type(network).__name__}"
        )


def _made(network: NativeNetwork) -> tuple[Job, WorkFolder, Any]:
    _require_native(network)
    if network.made is None:
        raise ValueError("the network is not quantized yet: call PTQ.apply(network, dataset) first")
    return network.made


def _samples(
    helper: Any, dataset: Any, framework: str | None, others: dict[str, Any]
) -> list[list[int]]:
    if others:
        raise ValueError(f"PTQ.apply: {', '.join(sorted(others))}: not supported")
    if framework is not None:
        raise ValueError(
            f"PTQ.apply: framework={framework!r}: networks are those of ptq.load_network; leave it "
            "out"
        )
    if dataset is None:
        helper, dataset = None, helper
    if helper is not None:
        raise ValueError("PTQ.apply: network_helper: our networks need none; leave it out")
    if dataset is None or not datasets.is_dataset(dataset):
        raise ValueError(
            "PTQ.apply: expected a dataset with a column input_ids, for example "
            f"ptq.ceval_dataset(folder, tokenizer); found {type(dataset).__name__}"
        )
    return datasets.token_ids(dataset)


def _described(kind: str) -> str:
    return {
        "W8A8": "W8-per_channel-A8-per_tensor",
        "W8A8_DYNAMIC": "W8-per_channel-A8-per_token",
        "W8A16": "W8-per_channel",
        "W4A16": "W4",
    }[kind]
