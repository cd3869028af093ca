# SPDX-License-Identifier: Apache-2.0
"""What headers are checked for is what the schemes read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.quantization import compressed
from vllm_mindspore.bridge import parameter
from vllm_mindspore.inspection.formats import CACHE, FLOATS, parts_of, problems_of
from vllm_mindspore.model_executor.model_loader.mapped_file import TORCH_DTYPES
from vllm_mindspore.model_executor.model_loader.quantization_files import Quantization
from vllm_mindspore.model_executor.model_loader.safetensors_header import TensorInfo
from vllm_mindspore.quantization import compressed_tensors, description
from vllm_mindspore.quantization.plan import plan_of
from vllm_mindspore.quantization.schemes import int8_cache
from vllm_mindspore.quantization.schemes.base import Projections

pytestmark = pytest.mark.usefixtures("mindspore_runtime")
IN, OUT = 128, 6
STORED_AS = {dtype: name for name, dtype in TORCH_DTYPES.items()}
DESCRIBED = ("quantization_description.json", "quant_model_description.json")


class Recording(SimpleNamespace):
    """A source that has everything, or only what is asked for without a question."""

    dtype = torch.float32

    def has(self, name: str) -> bool:
        return bool(self.optional)

    def note(self, problem: str) -> None:
        """Zeros are no scales."""

    def release(self, name: str) -> None:
        """Nothing is held."""

    def take_bits(self, name: str, shape: Sequence[int]) -> Any:
        return parameter(name, self.stored(name, [shape], [TORCH_DTYPES[kind] for kind in FLOATS]))

    def stored(self, name: str, shapes: Any, dtypes: Any) -> torch.Tensor:
        kinds = {STORED_AS[dtype] for dtype in dtypes}
        self.asked[name.removeprefix("q.")] = ({tuple(shape) for shape in shapes}, kinds)
        return torch.zeros(shapes[0], dtype=dtypes[0])


def described(file: str, kind: str) -> Quantization:
    return description.parse(Path(file), {"q.weight": kind})


def grouped(inputs: Any) -> Quantization:
    config = compressed.quantization_config(compressed.config([(["q"], inputs)]))
    return compressed_tensors.parse(Path("config.json"), config)


CASES = [
    *((described(DESCRIBED[0], kind), kind) for kind in description.TYPES),
    *((described(DESCRIBED[1], kind), kind) for kind in description.TYPES),
    (grouped(compressed.ZERO_POINT), "W8A8"),
    (grouped(compressed.STATIC), "W8A8"),
    (grouped(compressed.DYNAMIC), "W8A8_DYNAMIC"),
]


def asked(found: Quantization, *, optional: bool) -> dict[str, tuple[set[Any], set[str]]]:
    """What the scheme asks for."""
    source: Any = Recording(optional=optional, asked={})
    scheme = plan_of(found).scheme(["q"])
    scheme.parameters(source, Projections(("q",), IN, (OUT,), bias=optional))
    return dict(source.asked)


@pytest.mark.parametrize(("found", "kind"), CASES)
def test_parts_are_what_schemes_read(found: Quantization, kind: str) -> None:
    parts = parts_of(found, kind)
    assert parts is not None
    assert set(asked(found, optional=True)) == set(parts)
    required = {last: part for last, part in parts.items() if part.required}
    needed = asked(found, optional=False)
    needed.pop("input_zero_point", None)  # of groups that say so; others have none
    assert set(needed) == set(required)
    for last, part in required.items():
        assert (set(part.shapes_of(IN, OUT)), set(part.dtypes)) == needed[last]


def test_scales_of_int8_caches_are_what_their_scheme_reads() -> None:
    source: Any = Recording(optional=False, asked={})
    int8_cache.scales(source, "q", OUT)
    for last, part in CACHE.items():
        for projection in ("k_proj", "v_proj"):
            asked_for = source.asked[f"{projection}.{last}"]
            assert (set(part.shapes_of(IN, OUT)), set(part.dtypes)) == asked_for


def test_types_that_are_not_served_have_none() -> None:
    assert parts_of(None, "W4A4") is None


def info(dtype: str, *shape: int) -> TensorInfo:
    return TensorInfo(dtype, shape, 0, 0)


def test_problems() -> None:
    parts = parts_of(None, "W8A8_DYNAMIC")
    assert parts is not None
    right = {"weight": info("I8", OUT, IN), "weight_scale": info("F32", OUT, 1)}
    assert list(problems_of("q", right, parts, (IN, OUT))) == []
    wrong = {"weight": info("F32", OUT, IN), "weight_offset": info("F32", IN), "x": info("F32", 1)}
    assert list(problems_of("q", wrong, parts, (IN, OUT))) == [
        "tensor q.weight: expected dtype I8, found F32",
        "missing tensor q.weight_scale: expected shape [6] or [6, 1]",
        "tensor q.weight_offset: expected shape [6] or [6, 1], found [128]",
        "extra tensor q.x: layers of this type have none",
    ]
