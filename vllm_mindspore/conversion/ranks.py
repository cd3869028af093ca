# SPDX-License-Identifier: Apache-2.0
"""The tensors of one rank: a whole model's layers divided, fused, in float16 and compressed."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from vllm_mindspore.conversion.whole import Model, Static, Whole
from vllm_mindspore.device import sparse_weights
from vllm_mindspore.model_executor.model_loader.shards import Shards
from vllm_mindspore.quantization.description import FLOAT, SPARSE, STATIC
from vllm_mindspore.quantization.sharding import Rank, padded_vocabulary
from vllm_mindspore.quantization.sparse_description import CHECKSUM, fused_name

HEAD = "lm_head"
_VOCABULARY = ("embed_tokens", HEAD)
_OF_INPUT = ("input_scale", "input_offset")


@dataclass(frozen=True)
class LayerSize:
    """What compressing one fused layer of one rank gave.

    Attributes:
        rank: whose.
        module: its name.
        outputs: N.
        inputs: K.
        nonzero: weights that are not zero.
        stream_bytes: of `weight`.
        index_bytes: of `index`.
    """

    rank: int
    module: str
    outputs: int
    inputs: int
    nonzero: int
    stream_bytes: int
    index_bytes: int

    @property
    def ratio(self) -> float:
        """Compressed bytes per byte of int8 weights."""
        return (self.stream_bytes + self.index_bytes) / (self.outputs * self.inputs)

    @property
    def sparsity(self) -> float:
        """The share of weights that are zero."""
        return 1 - self.nonzero / (self.outputs * self.inputs)


@dataclass
class RankTensors:
    """What goes into the folder of one rank, for one part of the model.

    Attributes:
        tensors: by the names of the files.
        entries: of the description.
        sizes: of compressed layers.
        notes: what the conversion to float16 changed.
    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    entries: dict[str, object] = field(default_factory=dict)
    sizes: list[LayerSize] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class RankWriter:
    """Divides a whole model for one rank."""

    def __init__(self, whole: Whole, rank: Rank) -> None:
        self._whole, self._rank = whole, rank
        config = whole.model.config
        self._vocab_size = config.vocab_size
        self._shards = Shards(rank, config.vocab_size, config.attention.num_kv_heads)

    def add_linears(self, found: RankTensors, names: Sequence[str]) -> None:
        """Linear layers of one input."""
        module = fused_name(names)
        kinds = {self._whole.kind(name) for name in names}
        if kinds == {FLOAT}:
            self._add_floats(found, module, names)
        elif FLOAT in kinds:
            raise ValueError(f"{', '.join(names)} have one input, and one of them alone is float")
        else:
            self._add_static(found, module, [self._whole.static(name) for name in names], names)

    def add_float(self, found: RankTensors, name: str) -> None:
        """A tensor of no linear layer."""
        found.tensors[name] = _half(name, self._part(name, self._whole.float(name)))
        found.entries[name] = FLOAT

    def _add_floats(self, found: RankTensors, module: str, names: Sequence[str]) -> None:
        for part in ("weight", "bias"):
            if not self._whole.has(f"{names[0]}.{part}"):
                continue
            each = [f"{name}.{part}" for name in names]
            values = [self._part(name, self._whole.float(name)) for name in each]
            found.tensors[f"{module}.{part}"] = _half(each[0], _joined(values))
            found.entries[f"{module}.{part}"] = FLOAT

    def _add_static(
        self, found: RankTensors, module: str, layers: Sequence[Static], names: Sequence[str]
    ) -> None:
        made: dict[str, torch.Tensor] = {}
        for part in layers[0].tensors():
            values = [layer.tensors()[part] for layer in layers]
            if part in _OF_INPUT:
                _check_equal(names, part, values)
                values = values[:1]
            each = zip(names, values, strict=False)
            made[part] = _joined([self._part(f"{name}.{part}", value) for name, value in each])
        made["input_scale"], made["deq_scale"], note = _half_scale(
            module, made["input_scale"], made["deq_scale"]
        )
        if "bias" in made:
            made["bias"] = _half(f"{module}.bias", made["bias"])
        kind = STATIC if module == HEAD else SPARSE
        found.entries.update({f"{module}.{part}": kind for part in made})
        if kind == SPARSE:
            self._compress(found, module, made)
        found.tensors.update({f"{module}.{part}": values for part, values in made.items()})
        found.notes += [note] if note else []

    def _compress(self, found: RankTensors, module: str, made: dict[str, torch.Tensor]) -> None:
        weight = made["weight"].contiguous().numpy()
        stream, index = sparse_weights.encode(weight)
        made["weight"], made["index"] = torch.from_numpy(stream), torch.from_numpy(index)
        found.entries[f"{module}.index"] = SPARSE
        found.entries[f"{module}.weight.shape"] = [stream.size]
        found.entries[f"{module}.index.shape"] = [index.size]
        found.entries[f"{module}{CHECKSUM}"] = zlib.crc32(stream.data)
        sizes = *weight.shape, int(np.count_nonzero(weight)), stream.size, index.size
        found.sizes.append(LayerSize(self._rank.index, module, *sizes))

    def _part(self, name: str, whole: torch.Tensor) -> torch.Tensor:
        """This rank's; the vocabulary is filled up with zeros, for one rank too."""
        part = self._shards.part(name, whole)
        module, _, last = name.rpartition(".")
        if not module.endswith(_VOCABULARY) or last in _OF_INPUT or self._rank.count > 1:
            return part
        rows = padded_vocabulary(self._vocab_size, 1) - self._vocab_size
        return torch.cat([part, part.new_zeros((rows, *part.shape[1:]))]) if rows else part


def needed_bytes(whole: Whole, count: int) -> int:
    """At most, of all ranks' files: the whole, once more what every rank has, and a margin."""
    return int(whole.num_bytes * 1.01) + count * _of_every_rank(whole.model) + (1 << 24)


def _of_every_rank(model: Model) -> int:
    config = model.config
    kv_weights = 2 * config.attention.kv_size * config.hidden_size
    return config.num_layers * (kv_weights + 64 * config.hidden_size)


def _joined(values: Sequence[torch.Tensor]) -> torch.Tensor:
    return values[0] if len(values) == 1 else torch.cat(list(values))


def _half(name: str, values: torch.Tensor) -> torch.Tensor:
    found = values.to(torch.float16)
    if not torch.isfinite(found).all():
        raise ValueError(
            f"tensor {name}: a value of up to {float(values.abs().max()):.6g} is not finite in "
            "float16, the only dtype of compressed weights"
        )
    return found


def _half_scale(
    module: str, scale: torch.Tensor, deq_scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, str]:
    """input_scale in float16, and deq_scale with what that changed; a note if it did."""
    found = _half(f"{module}.input_scale", scale)
    if not (found > 0).all():
        raise ValueError(f"tensor {module}.input_scale: a scale is zero in float16")
    exact, rounded = scale.to(torch.float32), found.to(torch.float32)
    if torch.equal(exact, rounded):
        return found, deq_scale, ""
    note = f"{module}: input_scale was rounded to float16"
    if bool((exact == exact.flatten()[0]).all()):
        factor = rounded.flatten()[0] / exact.flatten()[0]
        return found, (deq_scale * factor).to(torch.float32), f"{note}, deq_scale follows it"
    return found, deq_scale, note


def _check_equal(names: Sequence[str], part: str, values: Sequence[torch.Tensor]) -> None:
    for name, other in zip(names[1:], values[1:], strict=True):
        if not torch.equal(other, values[0]):
            raise ValueError(
                f"tensor {name}.{part}: expected the values of {names[0]}.{part}, since both "
                "layers have the same input; found others"
            )
