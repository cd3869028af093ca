# SPDX-License-Identifier: Apache-2.0
"""The weights of one decoder layer as float32 arrays, which its cells read and calibration changes
in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from vllm_mindspore import bridge
from vllm_mindspore.quantization.ptq.float_checkpoint import FloatCheckpoint

if TYPE_CHECKING:
    from mindspore import Parameter


class LayerArrays:
    """A ParameterSource that reads a checkpoint on first use.

    Attributes:
        arrays: tensor name -> what the cells compute with.
    """

    dtype = torch.float32

    def __init__(self, checkpoint: FloatCheckpoint) -> None:
        self._checkpoint = checkpoint
        self.arrays: dict[str, npt.NDArray[np.float32]] = {}

    @property
    def num_bytes(self) -> int:
        """Of all arrays."""
        return sum(values.nbytes for values in self.arrays.values())

    def has(self, name: str) -> bool:
        """Whether the checkpoint holds a tensor `name`."""
        return name in self._checkpoint.names

    def take(self, name: str, shape: Sequence[int]) -> Parameter:
        """A Parameter over the array. Raises ValueError for a tensor that is missing, different or
        not finite."""
        if name not in self.arrays:
            self.arrays[name] = self._checkpoint.single(name, tuple(shape))
        return bridge.constant(name, self.arrays[name])

    def take_bits(self, name: str, shape: Sequence[int]) -> Parameter:
        """The same: float32 needs no other form."""
        return self.take(name, shape)

    def take_merged(self, names: Sequence[str], shapes: Sequence[Sequence[int]]) -> Parameter:
        """Not for calibration: a merged copy would not follow its arrays."""
        raise NotImplementedError(f"{list(names)} must stay apart")

    def stored(
        self, name: str, shapes: Sequence[Sequence[int]], dtypes: Sequence[torch.dtype]
    ) -> torch.Tensor:
        """Not for calibration: float checkpoints have no such tensors."""
        raise NotImplementedError(f"{name} is a tensor of a quantized layer")

    def release(self, name: str) -> None:
        """Nothing: no tensor is copied."""

    def note(self, problem: str) -> None:
        """Raises ValueError: problems end the work where they are found."""
        raise ValueError(problem)

    def place(self, name: str) -> str:
        """Tensor and file, for messages."""
        return f"tensor {name}"

    def finish(self) -> None:
        """Everything was checked when it was taken."""
