# SPDX-License-Identifier: Apache-2.0
"""Reads the adapter folders that PEFT writes: adapter_config.json and adapter_model.safetensors.

Format: https://huggingface.co/docs/peft/developer_guides/checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from vllm.config import LoRAConfig
from vllm.lora.peft_helper import PEFTHelper

from vllm_mindspore.model_executor.model_loader.adapter_slots import AdapterMatrices
from vllm_mindspore.model_executor.model_loader.mapped_file import MappedFile
from vllm_mindspore.model_executor.model_loader.source import Problems

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<matrix>[AB])\.weight")


def load_adapter(
    folder: Path,
    shapes: Mapping[str, tuple[int, int]],
    config: LoRAConfig,
    dtype: torch.dtype,
) -> dict[str, AdapterMatrices]:
    """The matrices of an adapter for the linear layers `shapes`, name -> (inputs, outputs).

    Raises ValueError naming every file, setting and tensor that does not fit.
    """
    helper = _read_config(folder, config)
    file = _open_weights(folder)
    problems = Problems(f"adapter {folder}")
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for name in sorted(file.header):
        found = _TENSOR.fullmatch(name)
        if found is None:
            problems.add(f"tensor {name}: only lora_A and lora_B of linear layers are supported")
        elif found["module"] not in shapes:
            problems.add(f"tensor {name}: the model has no linear layer {found['module']}")
        else:
            pairs.setdefault(found["module"], {})[found["matrix"]] = file.tensor(name)
    adapter = {}
    for module, pair in pairs.items():
        rank, scaling = helper.get_rank_and_scaling(module)
        problem = _problem(module, pair, shapes[module], rank)
        if problem:
            problems.add(problem)
            continue
        scaled = (pair["B"].float() * scaling).to(dtype)
        adapter[module] = AdapterMatrices(pair["A"].to(dtype), scaled)
    problems.raise_if_any("Give an adapter that was trained on this model.")
    if not adapter:
        raise ValueError(f"{folder / WEIGHTS} holds no tensors")
    return adapter


def _problem(
    module: str, pair: Mapping[str, torch.Tensor], shape: tuple[int, int], rank: int
) -> str:
    """What is wrong with the matrices of a module, or the empty string."""
    inputs, outputs = shape
    for matrix, expected in (("A", (rank, inputs)), ("B", (outputs, rank))):
        name = f"{module}.lora_{matrix}.weight"
        if matrix not in pair:
            return f"missing tensor {name}: expected shape {list(expected)}"
        tensor = pair[matrix]
        if tuple(tensor.shape) != expected:
            return f"tensor {name}: expected shape {list(expected)}, found {list(tensor.shape)}"
        if not torch.isfinite(tensor.float()).all():
            return f"tensor {name}: expected finite numbers, found NaN or Inf"
    return ""


def _read_config(folder: Path, config: LoRAConfig) -> PEFTHelper:
    path = folder / CONFIG
    try:
        helper = PEFTHelper.from_local_dir(str(folder), None)
        helper.validate_legal(config)
    except OSError as error:
        raise ValueError(
            f"{folder} is not a PEFT adapter folder: cannot read {CONFIG} ({error.strerror})"
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: {error}") from error
    return helper


def _open_weights(folder: Path) -> MappedFile:
    path = folder / WEIGHTS
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist; save the adapter with safe_serialization=True (pickle files "
            "are not read)"
        )
    return MappedFile(path)
