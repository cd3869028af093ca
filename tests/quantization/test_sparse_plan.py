# SPDX-License-Identifier: Apache-2.0
"""Layers of compressed folders become what the kernels take, rank by rank; all else is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mindspore import Parameter
from safetensors.torch import load_file, save_file

from tests.conversion.folders import DESCRIPTIONS, random_folder, whole_tensors
from tests.quantization.flat_layout import flat
from vllm_mindspore.bridge import to_torch
from vllm_mindspore.conversion.convert import compress
from vllm_mindspore.conversion.whole import Model
from vllm_mindspore.model_executor.model_loader import rank_files
from vllm_mindspore.model_executor.model_loader.quantization_files import read_description
from vllm_mindspore.model_executor.model_loader.safetensors import SafetensorsSource
from vllm_mindspore.model_executor.models.layout import layout_of
from vllm_mindspore.quantization import primitives, sparse_codec
from vllm_mindspore.quantization.description import Tool
from vllm_mindspore.quantization.schemes.base import Kind, LinearParameters, Projections
from vllm_mindspore.quantization.sharding import Rank
from vllm_mindspore.quantization.sparse_codec import Compressed
from vllm_mindspore.quantization.sparse_description import SparseDescription
from vllm_mindspore.quantization.sparse_plan import SparsePlan

pytestmark = pytest.mark.usefixtures("mindspore_runtime")
LAYER = "model.layers.0"
NAMES = tuple(f"{LAYER}.self_attn.{name}_proj" for name in "qkv")
QKV, DOWN = f"{LAYER}.self_attn.qkv_proj", f"{LAYER}.mlp.down_proj"
HIDDEN, INNER = 96, 320


def values(parameters: tuple[Parameter, ...]) -> torch.Tensor:
    return torch.cat([to_torch(parameter) for parameter in parameters])


class Loaded:
    """One rank of a folder."""

    def __init__(self, folder: Path, rank: Rank, *, decode: bool = False) -> None:
        found = read_description(folder)
        assert isinstance(found, SparseDescription)
        files = rank_files.select(found, rank.index)
        self.source = SafetensorsSource(files.folder, torch.float16, files=files)
        self.plan = SparsePlan(found, rank, decode=decode)

    def layer(
        self, names: tuple[str, ...], inner: int, sizes: tuple[int, ...], *, bias: bool = False
    ) -> LinearParameters:
        asked = Projections(names, inner, sizes, bias)
        return self.plan.scheme(names).parameters(self.source, asked)

    def problems(self) -> str:
        """What the load ends with, tensors that nobody asked for aside."""
        with pytest.raises(ValueError, match="does not fit the model") as error:
            self.source.finish()
        lines = str(error.value).splitlines()
        return "\n".join(line for line in lines if "extra tensor" not in line)


Change = Callable[[dict[str, torch.Tensor]], None]


def made(tmp_path: Path, count: int = 1, change: Change | None = None, **options: Any) -> Path:
    """A compressed folder; `change` is made to the first layer of the last rank."""
    compress(random_folder(tmp_path / "whole", **options), tmp_path / "made", count)
    if change is not None:
        file = tmp_path / "made" / f"rank_{count - 1}" / "model-00000.safetensors"
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)
    return tmp_path / "made"


def change_description(folder: Path, **changes: Any) -> None:
    file = folder / DESCRIPTIONS[Tool.GOLDEN_STICK]
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_one_stream_for_layers_of_one_input(tmp_path: Path) -> None:
    loaded = Loaded(made(tmp_path), Rank(0, 1))
    whole = whole_tensors(tmp_path / "whole")
    found = loaded.layer(NAMES, HIDDEN, (128, 64, 64))
    assert (found.kind, found.in_features) == (Kind.DIVIDE, HIDDEN)
    stream, index = (values(part).numpy() for part in (found.weights, found.indexes))
    decoded = sparse_codec.decode(Compressed(stream, index), 256, HIDDEN)
    expected = torch.cat([whole[f"{name}.weight"] for name in NAMES])
    assert np.array_equal(decoded, expected.numpy())
    for part, parameters in (("deq_scale", found.scales), ("quant_bias", found.quant_biases)):
        assert len(parameters) == 1
        assert torch.equal(values(parameters), torch.cat([whole[f"{n}.{part}"] for n in NAMES]))
    assert found.input_scale is not None
    assert torch.equal(to_torch(found.input_scale), whole[f"{NAMES[0]}.input_scale"].float())
    assert found.biases == ()
    assert loaded.plan.summary == "W8A8SC"


def test_decoded_layers_are_the_plain_ones(tmp_path: Path) -> None:
    found = Loaded(made(tmp_path), Rank(0, 1), decode=True).layer(NAMES, HIDDEN, (128, 64, 64))
    whole = whole_tensors(tmp_path / "whole")
    assert found.indexes == ()
    for index, name in enumerate(NAMES):
        assert torch.equal(to_torch(found.weights[index]), whole[f"{name}.weight"])
        assert torch.equal(to_torch(found.scales[index]), whole[f"{name}.deq_scale"])
        assert torch.equal(to_torch(found.quant_biases[index]), whole[f"{name}.quant_bias"])


def test_layers_that_stayed_float_or_dense(tmp_path: Path) -> None:
    options: dict[str, Any] = {"floats": ("q_proj", "k_proj", "v_proj"), "head": True}
    loaded = Loaded(made(tmp_path, **options), Rank(0, 1))
    whole = whole_tensors(tmp_path / "whole")
    found = loaded.layer(NAMES, HIDDEN, (128, 64, 64))
    assert found.kind is Kind.FLOAT
    for parameter, name in zip(found.weights, NAMES, strict=True):
        assert torch.equal(to_torch(parameter), whole[f"{name}.weight"])
    head = loaded.layer(("lm_head",), HIDDEN, (128,))
    assert torch.equal(values(head.weights)[:100], whole["lm_head.weight"])
    assert loaded.plan.summary == "W8A8SC/W8A8"


QWEN2: dict[str, Any] = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}


@pytest.mark.parametrize("decode", [False, True])
def test_biases(tmp_path: Path, decode: bool) -> None:
    found = Loaded(made(tmp_path, **QWEN2), Rank(0, 1), decode=decode)
    layer = found.layer(NAMES, HIDDEN, (128, 64, 64), bias=True)
    whole = whole_tensors(tmp_path / "whole")
    assert len(layer.biases) == (3 if decode else 1)
    assert torch.equal(values(layer.biases), torch.cat([whole[f"{n}.bias"] for n in NAMES]))


def test_biases_that_quant_bias_holds_are_zeros(tmp_path: Path) -> None:
    loaded = Loaded(made(tmp_path, tool=Tool.MODELSLIM, **QWEN2), Rank(0, 1))
    layer = loaded.layer(NAMES, HIDDEN, (128, 64, 64), bias=True)
    assert not values(layer.biases).any()


def test_numbers_for_all_channels_and_int64_scales(tmp_path: Path) -> None:
    """Files of 310P: deq_scale as int64, one scale and offset, `info`."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        encoded = primitives.encode_deq_scale(tensors[f"{DOWN}.deq_scale"].numpy())
        tensors[f"{DOWN}.deq_scale"] = torch.from_numpy(encoded)
        for part in ("input_scale", "input_offset"):
            tensors[f"{DOWN}.{part}"] = tensors[f"{DOWN}.{part}"][:1].clone()
        tensors[f"{DOWN}.info"] = torch.tensor([8, 8, INNER, HIDDEN, 1])

    folder = made(tmp_path, change=change)
    change_description(folder, device_type="310P")
    found = Loaded(folder, Rank(0, 1)).layer((DOWN,), INNER, (HIDDEN,))
    whole = whole_tensors(tmp_path / "whole")
    assert torch.equal(values(found.scales), whole[f"{DOWN}.deq_scale"])
    assert found.input_scale is not None
    assert found.input_offset is not None
    assert torch.equal(to_torch(found.input_scale), whole[f"{DOWN}.input_scale"].float())
    assert torch.equal(to_torch(found.input_offset), whole[f"{DOWN}.input_offset"].float())


def set_to(name: str, value: torch.Tensor) -> Change:
    return lambda tensors: tensors.update({name: value})


def add_one(name: str) -> Change:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name][0] += 1

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (add_one(f"{DOWN}.index"), f"tensor {DOWN}.weight in model-00000.safetensors: sparse_val"),
        (
            add_one(f"{DOWN}.index"),
            "tile 1 (outputs from 0, inputs from 256): offset in bytes: exp",
        ),
        (lambda t: t.pop(f"{DOWN}.index"), f"missing tensor {DOWN}.index: expected shape [16]"),
        (lambda t: t.pop(f"{DOWN}.quant_bias"), f"missing tensor {DOWN}.quant_bias"),
        (set_to(f"{DOWN}.index", torch.zeros(24, dtype=torch.int8)), "expected shape [16], found"),
        (set_to(f"{DOWN}.weight", torch.zeros(64, dtype=torch.int8)), "found [64]"),
        (set_to(f"{DOWN}.deq_scale", torch.zeros(HIDDEN).long()), "dtype F32, found I64"),
        (set_to(f"{DOWN}.deq_scale", torch.full((HIDDEN,), torch.inf)), "found 96 others of 96"),
        (set_to(f"{DOWN}.input_scale", torch.zeros(1).half()), "finite numbers above 0"),
        (set_to(f"{DOWN}.input_offset", torch.zeros(2).char()), "expected shape [320] or [1]"),
        (set_to(f"{DOWN}.info", torch.ones(5).long()), "expected [8, 8, 320, 96, 1], found [1, 1"),
    ],
)
def test_what_is_wrong_is_noted(tmp_path: Path, change: Change, expected: str) -> None:
    loaded = Loaded(made(tmp_path, change=change), Rank(0, 1))
    loaded.layer((DOWN,), INNER, (HIDDEN,))
    assert expected in loaded.problems()


@pytest.mark.parametrize("part", ["quant_bias", "bias"])
def test_only_the_first_rank_adds(tmp_path: Path, part: str) -> None:
    kinds = {"quant_bias": torch.int32, "bias": torch.float16}
    change = set_to(f"{DOWN}.{part}", torch.ones(HIDDEN, dtype=kinds[part]))
    loaded = Loaded(made(tmp_path, 2, change), Rank(1, 2))
    loaded.layer((DOWN,), INNER // 2, (HIDDEN,))
    found = loaded.problems()
    assert f"tensor {DOWN}.{part}: expected zeros on every rank but the first" in found


def test_the_flat_layout_loads_as_rank_folders_do(tmp_path: Path) -> None:
    """Every module of every rank, and nothing is left over."""
    folder = made(tmp_path, 2, head=True, floats=("1.mlp.gate_proj", "1.mlp.up_proj"), **QWEN2)
    flat(Path(shutil.copytree(folder, tmp_path / "flat")))
    for rank in (Rank(0, 2), Rank(1, 2)):
        part = Model.of(folder).config.of_rank(rank)
        layout = layout_of("qwen2", part)
        one, other = Loaded(folder, rank), Loaded(tmp_path / "flat", rank)
        for group in layout.linears:
            asked = (tuple(each.name for each in group), group[0].in_features)
            sizes = tuple(each.out_features for each in group)
            expected, found = (
                each.layer(*asked, sizes, bias=group[0].bias) for each in (one, other)
            )
            assert found.kind == expected.kind
            for ours, wanted in zip(tensors_of(found), tensors_of(expected), strict=True):
                assert torch.equal(ours, wanted)
        for name, shape in layout.floats.items():
            found_float, expected_float = (each.source.take(name, shape) for each in (other, one))
            assert torch.equal(to_torch(found_float), to_torch(expected_float))
        one.source.finish()
        other.source.finish()


def tensors_of(found: LinearParameters) -> list[torch.Tensor]:
    """All that a layer has."""
    inputs = [each for each in (found.input_scale, found.input_offset) if each is not None]
    outputs = [*found.weights, *found.indexes, *found.biases, *found.scales, *found.quant_biases]
    return [to_torch(each) for each in (*outputs, *inputs)]


@pytest.mark.parametrize("part", ["quant_bias", "bias"])
@pytest.mark.parametrize("decode", [False, True])
def test_flat_files_need_no_zeros(tmp_path: Path, part: str, decode: bool) -> None:
    """Whatever they have on ranks behind the first, zeros are added there."""
    folder = flat(made(tmp_path, 2), **{f"{DOWN}.bias": "FLOAT"})
    for rank in range(2):
        file = folder / f"model-rank-{rank}-part-0.safetensors"
        tensors = load_file(file)
        tensors[f"{DOWN}.quant_bias"] = torch.full((HIDDEN,), 3 + rank, dtype=torch.int32)
        tensors[f"{DOWN}.bias"] = torch.full((HIDDEN,), 3.0 + rank, dtype=torch.float16)
        save_file(tensors, file)
    for rank, expected in enumerate((3, 0)):
        loaded = Loaded(folder, Rank(rank, 2), decode=decode)
        found = loaded.layer((DOWN,), INNER // 2, (HIDDEN,), bias=True)
        (parameter,) = found.biases if part == "bias" else found.quant_biases
        assert parameter.name == f"{DOWN}.{part}"
        assert values((parameter,)).tolist() == [expected] * HIDDEN
        assert "found" not in loaded.problems()


def test_another_number_of_ranks(tmp_path: Path) -> None:
    folder = made(tmp_path)
    with pytest.raises(ValueError, match=r"made for 1 ranks.*tensor_parallel_size is 2"):
        Loaded(folder, Rank(0, 2))
