# SPDX-License-Identifier: Apache-2.0
"""Runs our own models as dynamic-shape MindSpore graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import mindspore as ms
import numpy as np
from mindspore import Tensor
from vllm.config import VllmConfig
from vllm.logger import init_logger

from vllm_mindspore import bridge, envs
from vllm_mindspore.checkpoint_checks import check_compressed
from vllm_mindspore.device.kernel_library import kernel_library
from vllm_mindspore.device.memory import give_back_free_memory
from vllm_mindspore.device.rank_group import RankGroup
from vllm_mindspore.device.runtime import computing_device, int8_caches_allowed
from vllm_mindspore.device.soc import Device
from vllm_mindspore.model_executor.backends.base import CacheShape, Classifier, GraphInputs
from vllm_mindspore.model_executor.layers.build import LayerBuilder
from vllm_mindspore.model_executor.model_loader import rank_files
from vllm_mindspore.model_executor.model_loader.adapter_slots import AdapterSlots
from vllm_mindspore.model_executor.model_loader.folder import checkpoint_folder
from vllm_mindspore.model_executor.model_loader.quantization_files import (
    Stored,
    read_quantization,
    stated_in,
)
from vllm_mindspore.model_executor.model_loader.rank_source import source_of_rank
from vllm_mindspore.model_executor.model_loader.safetensors import SafetensorsSource
from vllm_mindspore.model_executor.model_loader.shards import Shards
from vllm_mindspore.model_executor.model_loader.source import (
    DummySource,
    ParameterSource,
    relative_to_decoder,
)
from vllm_mindspore.model_executor.models import registry
from vllm_mindspore.model_executor.models.classifier import load_classifier
from vllm_mindspore.model_executor.models.config import decoder_config
from vllm_mindspore.model_executor.models.layout import fused_sizes, layout_of
from vllm_mindspore.model_executor.models.llama import HEAD
from vllm_mindspore.quantization import kv_cache
from vllm_mindspore.quantization.description import Description
from vllm_mindspore.quantization.plan import Plan, plan_of
from vllm_mindspore.quantization.sharding import Rank
from vllm_mindspore.quantization.sparse_description import SparseDescription

if TYPE_CHECKING:
    import torch

# In this phase a compiled graph is called without checking its arguments against it again, which
# costs milliseconds: the backend makes them, and always alike.
_INFERENCE_PHASE = "increment"
# How MindSpore 2.10 reports a kernel that returned an error.
_KERNEL_FAILED = "Return value from CPU AOT kernel"

logger = init_logger("vllm.vllm_mindspore.backend")


class NativeBackend:
    """The `Native` model backend: one rank's part of a model."""

    def __init__(self, vllm_config: VllmConfig, group: RankGroup | None = None) -> None:
        """`group`: that of this process, if several ranks have the model together."""
        self._group = group
        self._rank = Rank(group.index, group.count) if group else Rank(0, 1)
        self._model_config = vllm_config.model_config
        self._load_config = vllm_config.load_config
        self._block_size = vllm_config.cache_config.block_size
        self._asked_cache_dtype = vllm_config.cache_config.cache_dtype
        # What an NPU computed is on the NPU.
        on_host = computing_device() is Device.CPU
        self._to_torch = bridge.to_torch if on_host else bridge.copied_to_torch
        self._caches: tuple[list[Tensor], list[Tensor]] = ([], [])
        self._inference: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
        self.weight_bytes = 0
        self.classifier: Classifier | None = None
        self.adapters: AdapterSlots | None = None
        if (lora := vllm_config.lora_config) is not None:
            dtype = self._model_config.dtype
            self.adapters = AdapterSlots(lora.max_loras, lora.max_lora_rank, dtype)

    def load(self) -> None:
        """Builds the model. All problems of the checkpoint are one ValueError."""
        pools = self._model_config.runner_type == "pooling"
        model_class = registry.resolve(self._model_config.architectures, pools=pools)
        found = self._quantization()
        source = self._source(model_class.unused_tensors + ((HEAD,) if pools else ()), found)
        dtype = bridge.to_mindspore_dtype(source.dtype)
        self._fused = _use_fused_kernels(dtype)
        plan = self._plan(found)
        self._cache_dtype = kv_cache.dtype_of(source.dtype, int8=plan.int8_cache)
        builder = LayerBuilder(source, self._fused, self.adapters, plan, rank=self._rank)
        model = model_class(builder, self._model_config.hf_config, self._model_config.max_model_len)
        if self._model_config.convert_type == "classify":
            self.classifier = load_classifier(source, self._model_config, model.head_name)
        self._config = model.config
        self._decoder = model.decoder
        self._logits = None if pools else model.build_logits()
        source.finish()
        give_back_free_memory()
        self.weight_bytes = source.num_bytes + model.decoder.table_bytes
        if self.adapters is not None:
            self.weight_bytes += self.adapters.num_bytes
        if plan.int8_cache and not self._fused:
            self._inference = int8_caches_allowed
        self._declare_shapes(dtype)
        logger.info(
            "%s: %d layers, %.2f GB of %s weights, %s kernels",
            self._model_config.architectures[0],
            model.config.num_layers,
            self.weight_bytes / 1e9,
            plan.summary or source.dtype,
            "fused" if self._fused else "primitive chain",
        )

    def cache_shapes(self) -> list[CacheShape]:
        """One entry per decoder layer."""
        attention = self._config.attention
        return [
            CacheShape(
                f"model.layers.{index}.self_attn",
                attention.num_kv_heads,
                attention.head_dim,
                self._cache_dtype,
            )
            for index in range(self._config.num_layers)
        ]

    def bind_caches(
        self, key_caches: Sequence[torch.Tensor], value_caches: Sequence[torch.Tensor]
    ) -> None:
        """Sets the caches of all layers; the graphs write into their memory."""
        share = bridge.bits_from_torch if self._fused else bridge.from_torch
        if any(cache.is_meta for cache in key_caches):
            share = bridge.zeros_like
        self._caches = (
            ms.mutable([share(cache) for cache in key_caches]),
            ms.mutable([share(cache) for cache in value_caches]),
        )

    def forward(self, inputs: GraphInputs, adapters: np.ndarray | None = None) -> Tensor:
        """One graph call for prefill, chunked prefill, decode and any mix of them."""
        arrays = [bridge.from_numpy(array) for array in inputs.arrays()]
        slots = [] if adapters is None else [bridge.from_numpy(adapters)]
        with self._inference(), _kernel_errors():
            return self._decoder(*arrays, *self._caches, *slots)

    def hidden_states(self, hidden: Tensor) -> torch.Tensor:
        """[T, hidden]; waits for the graph. A copy, since MindSpore reuses the memory."""
        with _kernel_errors():
            return self._to_torch(hidden).clone()

    def logits(self, hidden: Tensor, rows: np.ndarray) -> torch.Tensor | None:
        """fp32 [R, vocab]; waits for the graph. On the first rank alone."""
        assert self._logits is not None, "the model was loaded for pooling"
        with _kernel_errors():
            part = self._to_torch(self._logits(hidden, bridge.from_numpy(rows)))
        if self._group is None or self._group.count == 1:
            return part
        whole = self._group.gather_columns(part.numpy(), self._model_config.get_vocab_size())
        return None if whole is None else bridge.to_host_torch(whole)

    def _source(self, unused: Sequence[str], found: Stored | None) -> ParameterSource:
        dtype = self._model_config.dtype
        if self._load_config.load_format == "dummy":
            return DummySource(dtype)
        if isinstance(found, SparseDescription):
            return self._source_of_rank(found, unused)
        folder: Path = checkpoint_folder(self._model_config, self._load_config)
        # A model that was downloaded is seen here first.
        check_compressed(folder, self._load_config.load_format, sparse=False)
        shards = self._shards(found) if self._rank.count > 1 else None
        return relative_to_decoder(
            SafetensorsSource(folder, dtype, unused, shards, writer=found.writer if found else "")
        )

    def _shards(self, found: Stored | None) -> Shards:
        """What this rank has of a folder that holds the whole model."""
        whole = decoder_config(self._model_config.hf_config)
        description = found if isinstance(found, Description) else None
        kv_heads = whole.attention.num_kv_heads
        return Shards(self._rank, whole.vocab_size, kv_heads, description)

    def _source_of_rank(self, found: SparseDescription, unused: Sequence[str]) -> SafetensorsSource:
        """The files that were made for this rank."""
        whole = decoder_config(self._model_config.hf_config)
        part = whole.of_rank(self._rank)
        sizes = fused_sizes(layout_of(self._model_config.hf_config.model_type, part))
        decode = envs.SPARSE_DECODE.get()
        rank_files.check(found, sizes, computing_device(), decode=decode)
        dtype = self._model_config.dtype
        return source_of_rank(found, self._rank, whole.vocab_size, dtype, unused)

    def _quantization(self) -> Stored | None:
        """How the checkpoint is quantized; dummy weights have what their folder describes."""
        dummy = self._load_config.load_format == "dummy"
        folder = Path(self._model_config.model)
        if not dummy:
            folder = checkpoint_folder(self._model_config, self._load_config)
        return read_quantization(folder, stated_in(self._model_config.hf_config))

    def _plan(self, found: Stored | None) -> Plan:
        dtype = self._model_config.dtype
        description = found if isinstance(found, Description) else None
        kv_cache.check(description, dtype, self._asked_cache_dtype)
        if isinstance(found, Description | SparseDescription):
            found.check(str(dtype).removeprefix("torch."))
        decode = envs.SPARSE_DECODE.get()
        return plan_of(found, self._rank, computing_device(), decode=decode)

    def _declare_shapes(self, dtype: ms.Type) -> None:
        """Marks every varying dimension, so that one compilation serves all steps."""
        attention = self._config.attention
        block = [self._block_size, attention.num_kv_heads, attention.head_dim]
        kind = bridge.bits_dtype if self._fused else bridge.to_mindspore_dtype
        cache_dtype = kind(self._cache_dtype)
        cache = Tensor(shape=[None, *block], dtype=cache_dtype)
        caches = ms.mutable([cache] * self._config.num_layers)
        row = Tensor(shape=[None], dtype=ms.int32)
        table = Tensor(shape=[None, None], dtype=ms.int32)
        slots = [] if self.adapters is None else [row]
        self._decoder.phase = _INFERENCE_PHASE
        self._decoder.set_inputs(row, row, row, table, row, row, caches, caches, *slots)
        if self._logits is None:
            return
        hidden = Tensor(shape=[None, self._config.hidden_size], dtype=dtype)
        self._logits.phase = _INFERENCE_PHASE
        self._logits.set_inputs(hidden, row)


def _use_fused_kernels(dtype: ms.Type) -> bool:
    device = computing_device()
    if dtype == ms.bfloat16 and device is Device.ASCEND_310P:
        raise ValueError("Atlas 300I Duo (310P) has no bfloat16; use --dtype float16")
    fused = envs.FUSED_KERNELS.get() and device is Device.CPU
    if not fused and dtype == ms.float32:
        raise ValueError(
            "VLLM_MS_FUSED_KERNELS=0 and NPUs run MindSpore's own ReshapeAndCache and "
            "PagedAttention, which refuse float32 caches; use --dtype bfloat16 or float16, or "
            "unset VLLM_MS_FUSED_KERNELS and VLLM_MS_DEVICE"
        )
    return fused


@contextlib.contextmanager
def _kernel_errors() -> Iterator[None]:
    """Adds what a kernel refused: MindSpore itself reports only its return code."""
    try:
        yield
    except RuntimeError as error:
        if _KERNEL_FAILED not in str(error):
            raise
        raise RuntimeError(f"{kernel_library().last_error()}\n{error}") from error
