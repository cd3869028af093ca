# SPDX-License-Identifier: Apache-2.0
"""The model that is converted: whole tensors by the names of the Hugging Face model, whatever form
its folder has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from vllm_mindspore.model_executor.model_loader.mapped_file import TORCH_DTYPES, open_folder
from vllm_mindspore.model_executor.models.config import DecoderConfig, decoder_config
from vllm_mindspore.model_executor.models.layout import UNUSED, Layout, layout_of
from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.description import FLOAT, SPARSE, STATIC, Description, Tool

CONVERTED = (FLOAT, STATIC, SPARSE)
"""Types of layers that can be converted."""

_EXTRA = ("weight_scale", "weight_offset")  # needed by nothing that computes
_NEEDED = ("weight", "deq_scale", "quant_bias", "input_scale", "input_offset")


@dataclass(frozen=True)
class Model:
    """What a model is beside its weights."""

    folder: Path
    hf_config: Any
    config: DecoderConfig
    layout: Layout

    @classmethod
    def of(cls, folder: Path) -> Model:
        """That in `folder`. Raises ValueError for a model that is not supported."""
        from vllm.transformers_utils.config import get_config

        hf_config = get_config(folder, trust_remote_code=False)
        config = decoder_config(hf_config)
        return cls(folder, hf_config, config, layout_of(hf_config.model_type, config))

    def part_of(self, name: str) -> int:
        """The number of the decoder layer that tensor or module `name` is in; for everything else
        the next one behind them."""
        words = name.split(".")
        return int(words[2]) if words[:2] == ["model", "layers"] else self.config.num_layers


@dataclass(frozen=True)
class Static:
    """One quantized linear layer, whole: what W8A8 needs and no more.

    Attributes:
        weight: int8 [N, K].
        deq_scale: float32 [N].
        quant_bias: int32 [N].
        input_scale: [1] or [K].
        input_offset: int8 [1] or [K].
        bias: [N], or None where there is none or quant_bias holds it.
    """

    weight: torch.Tensor
    deq_scale: torch.Tensor
    quant_bias: torch.Tensor
    input_scale: torch.Tensor
    input_offset: torch.Tensor
    bias: torch.Tensor | None

    def tensors(self) -> dict[str, torch.Tensor]:
        """By last names."""
        found = {part: getattr(self, part) for part in _NEEDED}
        return found if self.bias is None else {**found, "bias": self.bias}


class Whole(Protocol):
    """A model that is read."""

    model: Model

    def kind(self, module: str) -> str:
        """FLOAT, STATIC or SPARSE, of a linear layer of the model."""

    def static(self, module: str) -> Static:
        """A quantized linear layer."""

    def float(self, name: str) -> torch.Tensor:
        """Any other tensor."""

    def has(self, name: str) -> bool:
        """Whether there is a tensor `name`."""

    @property
    def num_bytes(self) -> int:
        """Of all tensors."""


class WholeFolder:
    """A folder with the names of the Hugging Face model, as `quantize` writes it."""

    def __init__(self, model: Model, description: Description) -> None:
        """Raises ValueError for layers of other types, and for tensors that are missing."""
        self.model = model
        self._description = description
        self._files = open_folder(model.folder)
        linears = [linear for group in model.layout.linears for linear in group]
        for linear in linears:
            if self.kind(linear.name) not in CONVERTED:
                raise ValueError(
                    f"{description.file}: {linear.name} has the type {self.kind(linear.name)}; "
                    f"what can be compressed are layers of type {STATIC} and {SPARSE}, beside "
                    "float ones"
                )
        expected = {f"{linear.name}.weight" for linear in linears} | model.layout.floats.keys()
        missing = sorted(expected - self._files.keys())
        if missing:
            raise ValueError(f"{model.folder}: missing tensor {missing[0]} ({len(missing)} in all)")
        self._check_no_others(expected, {linear.name for linear in linears})

    def kind(self, module: str) -> str:
        """As the description has it."""
        return self._description.type_of(module)

    def has(self, name: str) -> bool:
        """Whether a file holds it."""
        return name in self._files

    def float(self, name: str) -> torch.Tensor:
        """Mapped."""
        return self._stored(name)

    def static(self, module: str) -> Static:
        """Mapped, but scales and offsets. Raises ValueError for what compressed files cannot
        hold."""
        scale, offset = (self._stored(f"{module}.input_{part}") for part in ("scale", "offset"))
        self._check_input(module, scale, offset)
        deq_scale = self._stored(f"{module}.deq_scale").reshape(-1)
        if deq_scale.dtype == torch.int64:
            deq_scale = torch.from_numpy(primitives.decode_deq_scale(deq_scale.numpy()).copy())
        folded = self._description.tool is Tool.MODELSLIM
        has_bias = self.has(f"{module}.bias") and not folded
        return Static(
            self._stored(f"{module}.weight"),
            deq_scale.to(torch.float32),
            self._stored(f"{module}.quant_bias"),
            scale,
            offset.to(torch.int8),
            self._stored(f"{module}.bias") if has_bias else None,
        )

    @property
    def num_bytes(self) -> int:
        """By the headers."""
        return sum(file.header[name].num_bytes for name, file in self._files.items())

    def _stored(self, name: str) -> torch.Tensor:
        if name not in self._files:
            raise ValueError(f"{self.model.folder}: missing tensor {name}")
        file = self._files[name]
        if file.header[name].dtype not in TORCH_DTYPES:
            raise ValueError(
                f"{file.file}: tensor {name} is {file.header[name].dtype}; supported: "
                f"{', '.join(TORCH_DTYPES)}"
            )
        return file.tensor(name)

    def _check_input(self, module: str, scale: torch.Tensor, offset: torch.Tensor) -> None:
        if self.has(f"{module}.beta"):
            raise ValueError(
                f"{self.model.folder}: {module}.beta (Outlier Suppression+) has no place in "
                "compressed files; quantize with another --outlier-suppression"
            )
        codes = offset.to(torch.float32)
        whole = bool(
            (codes == codes.round()).all() and codes.abs().max() <= primitives.INT8_MAX + 1
        )
        golden_stick = self._description.tool is Tool.GOLDEN_STICK
        reciprocal = golden_stick and scale.numel() == 1 and offset.dtype != torch.int8
        if reciprocal or not whole:
            raise ValueError(
                f"{self.model.folder}: {module}.input_scale and input_offset are not a scale and "
                "an int8 zero point, and compressed files hold nothing else (Golden Stick stores "
                "1 / scale for layers that it did not smooth)"
            )

    def _check_no_others(self, expected: set[str], linears: set[str]) -> None:
        for name in sorted(self._files.keys() - expected):
            module, _, last = name.rpartition(".")
            quantized = module in linears and self.kind(module) != FLOAT
            known = (*_NEEDED, *_EXTRA, "bias") if quantized else ("weight", "bias")
            if name.endswith(UNUSED) or (module in linears and last in known):
                continue
            if last == "beta":
                self._check_input(module, torch.ones(1), torch.zeros(1, dtype=torch.int8))
            raise ValueError(f"{self.model.folder}: tensor {name} has no place in compressed files")


def groups_of(model: Model) -> Sequence[tuple[str, ...]]:
    """Linear layers that have one input, by names."""
    return [tuple(linear.name for linear in group) for group in model.layout.linears]
