# SPDX-License-Identifier: Apache-2.0
"""The float checkpoint that is quantized: its configuration and its tensors, mapped and checked.

Imports no MindSpore: what does not fit is found before anything starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vllm_mindspore.model_executor.model_loader import preflight
from vllm_mindspore.model_executor.model_loader.mapped_file import TORCH_DTYPES, open_folder
from vllm_mindspore.model_executor.model_loader.quantization_files import read_description
from vllm_mindspore.model_executor.models import registry
from vllm_mindspore.model_executor.models.config import DecoderConfig, decoder_config
from vllm_mindspore.model_executor.models.layout import HEAD
from vllm_mindspore.quantization.ptq.structure import all_groups

EMBEDDING = "model.embed_tokens.weight"
FINAL_NORM = "model.norm"

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_MAX_PROBLEMS = 10


class FloatCheckpoint:
    """A folder with a model of a supported architecture.

    Attributes:
        folder: where it is.
        hf_config: its config.json, as transformers reads it.
        config: the same as the models read it.
        dtype: of the embeddings, and so of the model's floats.
    """

    def __init__(self, folder: Path) -> None:
        """Raises ValueError for what is no folder, quantized already, or not supported."""
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder; download the model first and name its folder")
        preflight.check_config(folder)
        self.folder = folder
        self._refuse_quantized()
        self.hf_config: Any = _read_config(folder)
        self.config: DecoderConfig = self._decoder_config()
        self._files = open_folder(folder)
        self._check_linears()
        self.dtype = self.stored(EMBEDDING, self._embedding_shape).dtype

    @property
    def names(self) -> list[str]:
        """All tensors, in alphabetic order."""
        return sorted(self._files)

    @property
    def head_name(self) -> str:
        """The tensor whose rows give the logits."""
        return EMBEDDING if self.config.tied_embeddings else f"{HEAD}.weight"

    def any(self, name: str) -> torch.Tensor:
        """The tensor `name`, mapped from its file.

        Raises ValueError for a dtype that is not read here.
        """
        stored = self._files[name].header[name].dtype
        if stored not in TORCH_DTYPES:
            supported = ", ".join(TORCH_DTYPES)
            raise ValueError(f"tensor {name} is {stored}; supported: {supported}")
        return self._files[name].tensor(name)

    def stored(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """A float tensor of exactly `shape`, mapped from its file.

        Raises ValueError for one that is missing, or of another shape or kind.
        """
        if problem := self._problem(name, shape):
            raise ValueError(f"checkpoint {self.folder}: {problem}")
        return self._files[name].tensor(name)

    def single(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """The same as float32, in memory of its own.

        Raises ValueError for one that is missing, different or not finite, too.
        """
        values: npt.NDArray[np.float32] = self.stored(name, shape).to(torch.float32).numpy().copy()
        if not np.isfinite(values).all():
            raise ValueError(
                f"checkpoint {self.folder}: tensor {name} has values that are not finite; "
                "download it again"
            )
        return values

    def rows(self, token_ids: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Embeddings of tokens [T], float32 [T, hidden size]."""
        table = self.stored(EMBEDDING, self._embedding_shape)
        values: npt.NDArray[np.float32] = table[torch.from_numpy(token_ids).long()].float().numpy()
        return values

    def state(self) -> dict[str, list[int]]:
        """Size and time of the last change (ns) of config.json and of each file with weights."""
        files = {file.file for file in self._files.values()} | {self.folder / "config.json"}
        status = {file.name: file.stat() for file in sorted(files)}
        return {name: [found.st_size, found.st_mtime_ns] for name, found in status.items()}

    def num_bytes(self) -> int:
        """Of all tensors."""
        return sum(file.header[name].num_bytes for name, file in self._files.items())

    @property
    def _embedding_shape(self) -> tuple[int, int]:
        return self.config.vocab_size, self.config.hidden_size

    def _refuse_quantized(self) -> None:
        found = read_description(self.folder)
        if found is not None:
            raise ValueError(
                f"{self.folder} is quantized already: {found.file.name} says so; give the float "
                "model it was made from"
            )

    def _decoder_config(self) -> DecoderConfig:
        if getattr(self.hf_config, "quantization_config", None):
            raise ValueError(
                f"{self.folder} is quantized already: config.json has a quantization_config; give "
                "the float model it was made from"
            )
        architectures = getattr(self.hf_config, "architectures", None) or []
        if not set(architectures) & set(registry.ARCHITECTURES):
            raise ValueError(
                f"{self.folder}: architectures {architectures} are not supported; supported: "
                f"{', '.join(registry.supported_architectures())}"
            )
        return decoder_config(self.hf_config)

    def _check_linears(self) -> None:
        """All linear layers at once, before any is read."""
        untied = not self.config.tied_embeddings
        expected: dict[str, tuple[int, ...]] = {EMBEDDING: self._embedding_shape}
        for group in all_groups(self.config, head=untied):
            for name, size in group.parts():
                expected[f"{name}.weight"] = (size, group.in_features)
                if group.bias:
                    expected[f"{name}.bias"] = (size,)
        problems = [found for item in expected.items() if (found := self._problem(*item))]
        if problems:
            shown = "\n  ".join(problems[:_MAX_PROBLEMS])
            raise ValueError(
                f"checkpoint {self.folder} does not fit its config.json ({len(problems)} "
                f"problems):\n  {shown}"
            )

    def _problem(self, name: str, shape: tuple[int, ...]) -> str:
        if name not in self._files:
            return f"missing tensor {name}: expected shape {list(shape)}"
        info = self._files[name].header[name]
        if info.shape != shape:
            return f"tensor {name}: expected shape {list(shape)}, found {list(info.shape)}"
        if TORCH_DTYPES.get(info.dtype) not in _FLOATS:
            return f"tensor {name}: expected float32, bfloat16 or float16, found {info.dtype}"
        return ""


def _read_config(folder: Path) -> Any:
    from vllm.transformers_utils.config import get_config

    return get_config(folder, trust_remote_code=False)
