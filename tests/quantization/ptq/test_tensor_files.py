# SPDX-License-Identifier: Apache-2.0
"""Files that the safetensors library and our own reader take."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from vllm_mindspore.model_executor.model_loader.mapped_file import MappedFile
from vllm_mindspore.quantization.ptq import tensor_files
from vllm_mindspore.quantization.ptq.tensor_files import Entry

TENSORS = {
    "b.int8": torch.arange(-7, 8, dtype=torch.int8).reshape(3, 5),
    "a.bfloat16": torch.randn(7).bfloat16(),
    "c.float32": torch.randn(2, 3).t(),  # not contiguous
    "d.int64": torch.tensor([1 << 40]),
    "e.int32": torch.zeros(0, dtype=torch.int32),
}


def entries() -> list[Entry]:
    return [Entry.of(name, tensor) for name, tensor in TENSORS.items()]


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    tensor_files.write(file, entries(), {"format": "ms", "a": "Int4"})
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"format": "ms", "a": "Int4"}
        assert set(opened.keys()) == set(TENSORS)
        for name, tensor in TENSORS.items():
            assert torch.equal(opened.get_tensor(name), tensor)
    mapped = MappedFile(file)
    for name, info in mapped.header.items():
        assert info.offset % TENSORS[name].dtype.itemsize == 0  # never copied
        assert torch.equal(mapped.tensor(name), TENSORS[name])


def test_equal_tensors_give_equal_bytes(tmp_path: Path) -> None:
    for name, part in (("x", entries()), ("y", entries()[::-1])):
        tensor_files.write(tmp_path / name, part, {"format": "ms"})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x", "y"]


def test_tensors_are_read_when_they_are_written(tmp_path: Path) -> None:
    read: list[str] = []

    def lazy(name: str) -> Entry:
        def give() -> torch.Tensor:
            read.append(name)
            return torch.zeros(2)

        return Entry(name, torch.float32, (2,), give)

    parts = [lazy("a"), lazy("b")]
    assert not read
    tensor_files.write(tmp_path / "x", parts, {})
    assert read == ["a", "b"]


def test_files_are_split_in_order(rng: np.random.Generator) -> None:
    sizes = [30, 40, 50, 200, 10, 90]
    parts = [Entry.of(str(size), torch.zeros(size, dtype=torch.int8)) for size in sizes]
    found = [[entry.num_bytes for entry in part] for part in tensor_files.split(parts, 100)]
    assert found == [[30, 40], [50], [200], [10, 90]]


def test_json_is_complete_when_it_is_there(tmp_path: Path) -> None:
    tensor_files.write_json(tmp_path / "x.json", {"a": [1], "中": 2})
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == {"a": [1], "中": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]
