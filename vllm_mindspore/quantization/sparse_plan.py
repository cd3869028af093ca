# SPDX-License-Identifier: Apache-2.0
"""Which scheme each linear layer of a folder of compressed weights has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from vllm_mindspore.device.soc import Device
from vllm_mindspore.quantization import sparse_support
from vllm_mindspore.quantization.description import FLOAT, SPARSE, Tool
from vllm_mindspore.quantization.schemes.base import Scheme
from vllm_mindspore.quantization.schemes.float_linear import Float
from vllm_mindspore.quantization.schemes.fused import Fused, OnFirstRankOnly
from vllm_mindspore.quantization.schemes.w8a8 import W8A8
from vllm_mindspore.quantization.schemes.w8a8sc import W8A8SC
from vllm_mindspore.quantization.sharding import Rank, Split, split_of
from vllm_mindspore.quantization.sparse_description import COMPRESSED, Layout, SparseDescription


class SparsePlan:
    """As the block of one rank has it, by the names of fused modules."""

    quantized = True
    int8_cache = False

    def __init__(
        self,
        found: SparseDescription,
        rank: Rank,
        device: Device = Device.CPU,
        *,
        decode: bool = False,
    ) -> None:
        """`decode`: weights are decoded when they are loaded.

        Raises:
            ValueError: the folder was made for another number of ranks, or is not computed on
                `device`.
        """
        found.check_ranks(rank.count)
        sparse_support.check(found, device, decode=decode)
        self._found, self._rank, self._decode = found, rank, decode
        self._block = found.blocks[rank.index]
        weights = [kind for name, kind in self._block.types.items() if name.endswith(".weight")]
        kinds = [kind for kind, _ in Counter(weights).most_common() if kind != FLOAT]
        self.summary = "/".join(COMPRESSED if kind == SPARSE else kind for kind in kinds)
        if decode:
            self.summary += " (decoded)"

    def scheme(self, names: Sequence[str]) -> Scheme:
        """That of the fused module which holds all of `names`.

        Raises:
            ValueError: the description does not name it.
        """
        module, kind = self._found.fused_type(names, self._rank.index)
        if kind == SPARSE:
            found: Scheme = self._compressed(module)
        elif kind == FLOAT:
            found = Float()
        else:
            found = W8A8(Tool.GOLDEN_STICK if self._has_bias(module) else Tool.MODELSLIM)
        if kind != SPARSE and list(names) != [module]:
            found = Fused(found, module)
        if split_of(module) is Split.ROW and self._rank.index > 0:
            # vllm-ascend, whose layout is the flat one, zeroes it when it loads such files.
            found = OnFirstRankOnly(found, module, zeroed=self._found.layout is Layout.FLAT)
        return found

    def _compressed(self, module: str) -> W8A8SC:
        sizes, bias = self._block.sizes[module], self._has_bias(module)
        found, checksum = self._found, self._block.checksums.get(module)
        return W8A8SC(module, sizes, found.encoded, bias, found.own_codec, self._decode, checksum)

    def _has_bias(self, module: str) -> bool:
        return f"{module}.bias" in self._block.types
