# SPDX-License-Identifier: Apache-2.0
"""What is refused, at start-up, of a checkpoint and of the options that speak of its files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from vllm.logger import init_logger

from vllm_mindspore import envs
from vllm_mindspore.device import soc
from vllm_mindspore.model_executor.model_loader import checkpoint_files, rank_files
from vllm_mindspore.model_executor.model_loader.quantization_files import (
    Stored,
    check_asked,
    read_description,
    read_quantization,
    stated_in,
)
from vllm_mindspore.model_executor.models.config import decoder_config
from vllm_mindspore.model_executor.models.layout import DECODER_PREFIX, fused_sizes, layout_of
from vllm_mindspore.quantization import kv_cache
from vllm_mindspore.quantization.description import Description, one_type
from vllm_mindspore.quantization.sharding import Rank
from vllm_mindspore.quantization.sparse_description import SparseDescription

if TYPE_CHECKING:
    from vllm.config import VllmConfig

logger = init_logger(f"vllm.{__name__}")  # vLLM shows loggers below its own

SPARSE_FORMAT = "sparse_quant"
LOAD_FORMATS = ("auto", "hf", "safetensors", "dummy", SPARSE_FORMAT)


def refuse(asked: str, reason: str, advice: str) -> NoReturn:
    """Raise ValueError: what was asked, why not, and what to do instead."""
    raise ValueError(f"{asked} is not supported by vllm-mindspore: {reason}. {advice}")


def quantization(vllm_config: VllmConfig) -> None:
    """What the files and --quantization say fits, and can be computed."""
    folder = Path(vllm_config.model_config.model)
    if not folder.is_dir():
        return  # to be downloaded: the worker looks
    model = vllm_config.model_config
    found, asked = read_quantization(folder, stated_in(model.hf_config)), model.quantization
    if asked is not None:
        check_asked(folder, asked, found)
    if found is None:
        return
    if isinstance(found, Description | SparseDescription):
        found.check(str(model.dtype).removeprefix("torch."))
    if isinstance(found, SparseDescription):
        _check_ranks(found, vllm_config)
    _check_types(found, model.hf_config)
    if vllm_config.lora_config is not None:
        refuse(
            f"LoRA on a quantized checkpoint ({found.file.name})",
            "adapters are computed beside float weights",
            "Drop --enable-lora, or serve the float checkpoint.",
        )


def _check_ranks(found: SparseDescription, vllm_config: VllmConfig) -> None:
    """Raise ValueError for compressed weights that cannot be computed here, or not by so many
    workers; tell what is converted."""
    count = vllm_config.parallel_config.tensor_parallel_size
    hf_config = vllm_config.model_config.hf_config
    sizes: dict[str, tuple[int, int]] = {}
    if count == len(found.blocks):
        part = decoder_config(hf_config).of_rank(Rank(0, count))
        sizes = fused_sizes(layout_of(hf_config.model_type, part))
    device = soc.known_device(npu=envs.uses_npus())
    rank_files.check(found, sizes, device, decode=envs.SPARSE_DECODE.get())
    found.check_ranks(count)
    for notice in rank_files.notices(found):
        logger.info("%s: %s", found.file.parent, notice)


def _check_types(found: Stored, hf_config: Any) -> None:
    """Raise ValueError for layers of the decoder (not all have a head) without one clear type."""
    for together in layout_of(hf_config.model_type, decoder_config(hf_config)).linears:
        names = [linear.name for linear in together if linear.name.startswith(DECODER_PREFIX)]
        if names:
            one_type(found.file, {name: found.type_of(name) for name in names})


def load_format(vllm_config: VllmConfig) -> None:
    """--load-format is one that is read here, and that of the files."""
    load_format = vllm_config.load_config.load_format
    if load_format not in LOAD_FORMATS:
        refuse(
            f"load_format={load_format!r}",
            "weights are read from safetensors files",
            f"Use one of {', '.join(LOAD_FORMATS)}.",
        )
    folder = Path(vllm_config.model_config.model)
    found = read_description(folder) if folder.is_dir() else None
    sparse = isinstance(found, SparseDescription)
    if folder.is_dir():
        check_compressed(folder, load_format, sparse=sparse)
    if sparse and load_format not in ("auto", SPARSE_FORMAT):
        refuse(
            f"load_format={load_format!r} for {folder}",
            "its weights are compressed, a folder for each rank",
            f"Use --load-format {SPARSE_FORMAT}, or drop it.",
        )


def check_compressed(folder: Path, load_format: str, *, sparse: bool) -> None:
    """Raise ValueError for --load-format sparse_quant of a folder that is not `sparse`."""
    if load_format == SPARSE_FORMAT and not sparse:
        if any(folder.glob("rank_*")):
            checkpoint_files.select(folder)  # says what is missing
        refuse(
            f"load_format={load_format!r} for {folder}",
            "it has no description with a block for each rank: its weights are not compressed",
            "Drop --load-format, or compress them: vllm-mindspore convert.",
        )


def kv_cache_dtype(vllm_config: VllmConfig) -> None:
    """--kv-cache-dtype is what the files give."""
    folder = Path(vllm_config.model_config.model)
    found = read_description(folder) if folder.is_dir() else None
    description = found if isinstance(found, Description) else None
    asked = vllm_config.cache_config.cache_dtype
    kv_cache.check(description, vllm_config.model_config.dtype, asked)


def check_groups(vllm_config: VllmConfig) -> None:
    """Raise ValueError where a rank's part of a quantized layer would not be whole groups."""
    size = vllm_config.parallel_config.tensor_parallel_size
    folder = Path(vllm_config.model_config.model)
    description = read_description(folder) if folder.is_dir() else None
    if not isinstance(description, Description):
        return
    config = decoder_config(vllm_config.model_config.hf_config)
    group = description.stated_group_size
    sizes = {
        "intermediate_size": config.intermediate_size,
        "num_attention_heads * head_dim": config.attention.query_size,
    }
    for name, inner in sizes.items():
        if group and (inner // size) % group:
            refuse(
                f"tensor_parallel_size={size} with group_size={group} ({description.file.name})",
                f"{name}={inner} gives each rank {inner // size} inputs, which are no whole groups",
                "Lower --tensor-parallel-size, or quantize with smaller groups.",
            )
