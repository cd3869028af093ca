# SPDX-License-Identifier: Apache-2.0
"""The whole model that a folder of compressed weights was made of, put together from its ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vllm_mindspore.conversion import load_check
from vllm_mindspore.conversion.whole import Model, Static
from vllm_mindspore.device import sparse_weights
from vllm_mindspore.model_executor.model_loader import rank_files
from vllm_mindspore.model_executor.model_loader.mapped_file import MappedFile, open_files
from vllm_mindspore.model_executor.models.layout import layout_of
from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.description import SPARSE
from vllm_mindspore.quantization.sharding import Rank, Split, is_added_once, of_kv_heads, split_of
from vllm_mindspore.quantization.sparse_description import SparseDescription, fused_name

_KV = ("k_proj", "v_proj")
_TWO_ABOVE_EACH_OTHER = "gate_up_proj"
_VOCABULARY = ("embed_tokens", "lm_head")
_OF_INPUT = ("input_scale", "input_offset")


class Rejoined:
    """A folder of compressed weights as a whole model."""

    def __init__(self, model: Model, found: SparseDescription) -> None:
        """Loads what each rank has. Raises ValueError for a folder that no engine would load, or
        that is in another coding, and for a number of ranks that does not divide the model."""
        self.model = model
        self._found = found
        self._count = len(found.blocks)
        load_check.check_ranks(model, found)
        part = model.config.of_rank(Rank(0, self._count))
        layout = layout_of(model.hf_config.model_type, part)
        self._sizes = {linear.name: linear for group in layout.linears for linear in group}
        self._groups = {
            linear.name: [other.name for other in group]
            for group in layout.linears
            for linear in group
        }
        selections = [rank_files.select(found, rank) for rank in range(self._count)]
        self._files: list[dict[str, MappedFile]] = [open_files(files) for files in selections]
        self._decoded: tuple[str, list[torch.Tensor]] = ("", [])

    def kind(self, module: str) -> str:
        """As the description has it."""
        return self._found.type_of(module)

    def has(self, name: str) -> bool:
        """Whether its fused module has such a tensor."""
        return self._stored_name(name) in self._files[0]

    def float(self, name: str) -> torch.Tensor:
        """Of all ranks, in their order."""
        return self._whole(name)

    def static(self, module: str) -> Static:
        """A layer of its own."""
        deq_scale = self._whole(f"{module}.deq_scale")
        if deq_scale.dtype == torch.int64:
            deq_scale = torch.from_numpy(primitives.decode_deq_scale(deq_scale.numpy()).copy())
        return Static(
            self._whole(f"{module}.weight"),
            deq_scale,
            self._whole(f"{module}.quant_bias"),
            self._whole(f"{module}.input_scale"),
            self._whole(f"{module}.input_offset"),
            self._whole(f"{module}.bias") if self.has(f"{module}.bias") else None,
        )

    @property
    def num_bytes(self) -> int:
        """Of all ranks, as if no weight were compressed."""
        total = 0
        for rank, files in enumerate(self._files):
            compressed = self._found.blocks[rank].sizes
            for name, file in files.items():
                module, _, last = name.rpartition(".")
                if last != "weight" or module not in compressed:
                    total += file.header[name].num_bytes
        for rank in range(self._count):
            for group in {tuple(names) for names in self._groups.values()}:
                if fused_name(group) in self._found.blocks[rank].sizes:
                    linears = [self._sizes[name] for name in group]
                    total += sum(linear.in_features * linear.out_features for linear in linears)
        return total

    def _whole(self, name: str) -> torch.Tensor:
        module, _, part = name.rpartition(".")
        split = split_of(module)
        if split is Split.ROW and is_added_once(part):
            return self._of_rank(name, 0)
        parts = [self._of_rank(name, rank) for rank in range(self._count)]
        if split is Split.COLUMN and part not in _OF_INPUT:
            return self._joined(module, parts)
        if split is Split.ROW and (part == "weight" or part in _OF_INPUT):
            return self._beside_each_other(module, parts)
        if module.endswith(_VOCABULARY) and part not in _OF_INPUT:
            return torch.cat(parts)[: self.model.config.vocab_size]
        return self._same(name, parts)

    def _beside_each_other(self, module: str, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Inputs of all ranks. A number that all of them have for all inputs stays one."""
        if parts[0].numel() == 1 and all(torch.equal(part, parts[0]) for part in parts):
            return parts[0]
        inner = self._sizes[module].in_features
        return torch.cat([part.expand(inner) if part.numel() == 1 else part for part in parts], -1)

    def _same(self, name: str, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """What every rank has whole."""
        for rank, part in enumerate(parts):
            self._check_equal(name, (rank, part), (0, parts[0]))
        return parts[0]

    def _check_equal(
        self, name: str, one: tuple[int, torch.Tensor], other: tuple[int, torch.Tensor]
    ) -> None:
        if one[1].dtype != other[1].dtype or not torch.equal(one[1], other[1]):
            raise ValueError(
                f"{self._found.file.parent}: {name} of rank {one[0]} differs from that of rank "
                f"{other[0]}, where it must be the same"
            )

    def _joined(self, module: str, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Outputs of all ranks; heads that ranks share once."""
        if module.endswith(_KV):
            kv_heads = self.model.config.attention.num_kv_heads
            which = [of_kv_heads(Rank(i, self._count), kv_heads) for i in range(self._count)]
            first = {rank.index: i for i, rank in reversed(list(enumerate(which)))}
            for i, rank in enumerate(which):
                same = first[rank.index]
                self._check_equal(module, (i, parts[i]), (same, parts[same]))
            return torch.cat([parts[first[index]] for index in sorted(first)])
        if module.endswith(_TWO_ABOVE_EACH_OTHER):
            halves = [part.chunk(2) for part in parts]
            return torch.cat([half[0] for half in halves] + [half[1] for half in halves])
        return torch.cat(list(parts))

    def _of_rank(self, name: str, rank: int) -> torch.Tensor:
        """The rows of one layer in a fused tensor of one rank."""
        module, _, part = name.rpartition(".")
        if module not in self._sizes:
            return self._stored(name, rank)
        names = self._groups[module]
        fused = fused_name(names)
        if part == "weight" and self._found.blocks[rank].type_of(fused) == SPARSE:
            values = self._weights(fused, names)[rank]
        else:
            values = self._stored(f"{fused}.{part}", rank)
        if part in _OF_INPUT or len(names) == 1:
            return values
        sizes = [self._sizes[other].out_features for other in names]
        start = sum(sizes[: names.index(module)])
        return values[start : start + sizes[names.index(module)]]

    def _weights(self, fused: str, names: Sequence[str]) -> list[torch.Tensor]:
        """Decoded, of all ranks; those of the last layer are kept."""
        if self._decoded[0] != fused:
            outer = sum(self._sizes[name].out_features for name in names)
            inner = self._sizes[names[0]].in_features
            each = [self._decode(fused, rank, outer, inner) for rank in range(self._count)]
            self._decoded = (fused, each)
        return self._decoded[1]

    def _decode(self, fused: str, rank: int, outer: int, inner: int) -> torch.Tensor:
        stream, index = (self._stored(f"{fused}.{part}", rank) for part in ("weight", "index"))
        found = sparse_weights.decode(stream.numpy(), index.numpy(), outer, inner)
        return torch.from_numpy(found)

    def _stored(self, name: str, rank: int) -> torch.Tensor:
        file = self._files[rank].get(name)
        if file is None:
            raise ValueError(f"{self._found.file.parent}: rank {rank}: missing tensor {name}")
        return file.tensor(name)

    def _stored_name(self, name: str) -> str:
        module, _, part = name.rpartition(".")
        return f"{fused_name(self._groups[module])}.{part}" if module in self._groups else name
