# SPDX-License-Identifier: Apache-2.0
"""Folders whose index, links or files contradict each other are refused by name; those that the
Hugging Face cache makes are not."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.hostile.files import INDEX, SHAPES, SINGLE, one_tensor, right_file, write_index
from vllm_mindspore.model_executor.model_loader.checkpoint_files import check_folder
from vllm_mindspore.model_executor.model_loader.preflight import check_config
from vllm_mindspore.model_executor.model_loader.quantization_files import read_description
from vllm_mindspore.model_executor.model_loader.safetensors import SafetensorsSource

Reader = Callable[[Path], object]


def _load(folder: Path) -> object:
    return SafetensorsSource(folder, torch.float32)


each_reader = pytest.mark.parametrize("read", [check_folder, _load], ids=["front-end", "loader"])


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder in which x.safetensors holds x, y.safetensors holds y, and an index says so."""
    for name in ("x", "y"):
        (tmp_path / f"{name}.safetensors").write_bytes(one_tensor(name))
    write_index(tmp_path, {"x": "x.safetensors", "y": "y.safetensors"})
    return tmp_path


@each_reader
def test_the_folder_of_these_tests_is_right(read: Reader, shards: Path) -> None:
    read(shards)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        (INDEX, check_folder),
        ("quantization_description.json", read_description),
        ("part0-of-1/quant_model_description.json", read_description),
        ("config.json", check_config),
    ],
)
def test_a_huge_description_is_refused_before_it_is_read(
    name: str, read: Reader, tmp_path: Path
) -> None:
    """A sparse file: reading it all may be more than there is memory."""
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    with file.open("wb") as stream:
        stream.truncate(100_000_001)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is checked below
            read(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert str(error.value) == (
        f"{file}: expected a JSON object of at most 100000000 bytes, found a file of 100000001"
    )


@each_reader
@pytest.mark.parametrize(
    ("weight_map", "expected"),
    [
        ({"x": "x.safetensors", "y": "x.safetensors"}, r"lists \['y'\] .1 in all., which no file"),
        (
            {"x": "x.safetensors", "y": "y.safetensors", "z": "y.safetensors"},
            r"lists \['z'\] .1 in all., which no file holds",
        ),
        (
            {"x": "y.safetensors", "y": "x.safetensors"},
            "tensor x: expected in y.safetensors, found in x.safetensors",
        ),
        ({"x": "x.safetensors", "y": "gone.safetensors"}, "gone.safetensors does not exist"),
        ({"x": 7}, "tensor 'x': 7 is not a plain file name"),
        ({"x": None}, "tensor 'x': None is not a plain file name"),
        ({"x": ["x.safetensors"]}, "is not a plain file name"),
        ({"x": "../x.safetensors"}, "'../x.safetensors' is not a plain file name in the folder"),
        ({"x": "/etc/hostname"}, "'/etc/hostname' is not a plain file name in the folder"),
        ({"x": "sub/x.safetensors"}, "is not a plain file name"),
        ({"x": ".."}, "is not a plain file name"),
        ({"x": "."}, "is not a plain file name"),
        ({"x": ""}, "is not a plain file name"),
        ({"x": "x\0.safetensors"}, r"'x\\x00.safetensors' is not a plain file name"),
        ({"x": "x\n.safetensors"}, "is not a plain file name"),
        ({"x": "n" * 300}, "cannot be opened: File name too long"),
        ({}, "weight_map must be a non-empty object"),
        ([], "weight_map must be a non-empty object"),
        ("x.safetensors", "weight_map must be a non-empty object"),
    ],
)
def test_a_wrong_index_is_refused(
    read: Reader, weight_map: Any, expected: str, shards: Path
) -> None:
    write_index(shards, weight_map)
    with pytest.raises(ValueError, match=expected) as error:
        read(shards)
    assert str(shards) in str(error.value)
    assert "\n" not in str(error.value)


@each_reader
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "expected a JSON object"),
        (b"{", "expected a JSON object"),
        (b"[]", "expected a JSON object, found a list"),
        (b"{}", "weight_map must be .+, found none"),
        (b"\xff\xfe{}", "expected a JSON object in UTF-8"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"weight_map": {"x": "x.safetensors", "x": "y.safetensors"}}', "the key 'x' 2 times"),
        (b'{"weight_map": {}, "weight_map": {}}', "the key 'weight_map' 2 times"),
    ],
)
def test_an_index_that_is_no_index_is_named(
    read: Reader, text: bytes, expected: str, shards: Path
) -> None:
    (shards / INDEX).write_bytes(text)
    with pytest.raises(ValueError, match=rf"{INDEX}: .*{expected}"):
        read(shards)


@each_reader
def test_an_index_beside_a_single_file_is_ambiguous(read: Reader, shards: Path) -> None:
    (shards / SINGLE).write_bytes(right_file())
    with pytest.raises(ValueError, match=rf"has {SINGLE} and {INDEX}.+Remove the one"):
        read(shards)


QUANTIZED = "quant_model_weight_w8a8.safetensors"


@each_reader
@pytest.mark.parametrize(
    "name",
    [
        "quant_model_weights.safetensors.index.json",
        "quant_model_weight_w8a8_dynamic.safetensors.index.json",
    ],
)
def test_the_indexes_of_modelslim_are_found(read: Reader, name: str, shards: Path) -> None:
    (shards / INDEX).rename(shards / name)
    read(shards)
    (shards / name).write_text(json.dumps({"weight_map": {"x": "y.safetensors"}}))
    with pytest.raises(ValueError, match=rf"{shards / name} lists \['x'\]"):
        read(shards)


@each_reader
def test_several_indexes_are_several_checkpoints(read: Reader, shards: Path) -> None:
    (shards / f"{QUANTIZED}.index.json").write_text((shards / INDEX).read_text())
    with pytest.raises(ValueError, match=rf"has {INDEX} and {QUANTIZED}.index.json: these are two"):
        read(shards)


@each_reader
def test_float_and_quantized_weights_are_two_checkpoints(read: Reader, tmp_path: Path) -> None:
    for name in (SINGLE, QUANTIZED):
        (tmp_path / name).write_bytes(right_file())
    with pytest.raises(ValueError, match=rf"has {SINGLE} and {QUANTIZED}: these are two"):
        read(tmp_path)
    (tmp_path / SINGLE).unlink()
    read(tmp_path)


@each_reader
def test_an_index_may_list_the_single_file(read: Reader, tmp_path: Path) -> None:
    (tmp_path / SINGLE).write_bytes(right_file())
    write_index(tmp_path, dict.fromkeys(SHAPES, SINGLE))
    read(tmp_path)


@each_reader
def test_files_that_the_index_does_not_list_are_left_alone(read: Reader, shards: Path) -> None:
    """Mistral's folders have the same weights once more in consolidated.safetensors."""
    (shards / "consolidated.safetensors").write_bytes(b"not opened")
    read(shards)


def test_a_tensor_that_the_index_does_not_list_is_extra(shards: Path) -> None:
    (shards / "x.safetensors").write_bytes(right_file())
    write_index(shards, {"a.weight": "x.safetensors"})
    source = SafetensorsSource(shards, torch.float32)
    source.take("a.weight", SHAPES["a.weight"])
    with pytest.raises(ValueError, match=r"extra tensor b.weight in x.safetensors: the model has"):
        source.finish()


@each_reader
@pytest.mark.parametrize("other", ["pytorch_model.bin", "model.pt", "model.gguf"])
def test_other_weights_are_refused_with_advice(read: Reader, other: str, tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / other)
    with pytest.raises(ValueError, match=rf"has no \*.safetensors file, but {other}.+convert"):
        read(tmp_path)


@pytest.mark.parametrize("indexed", [False, True])
@each_reader
def test_the_hugging_face_cache_is_read(read: Reader, indexed: bool, tmp_path: Path) -> None:
    """snapshots/<revision>/ links to ../../blobs/<hash>."""
    snapshot, blobs = tmp_path / "snapshots" / "0a1b", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "c0ffee").write_bytes(right_file())
    (snapshot / SINGLE).symlink_to("../../blobs/c0ffee")
    if indexed:
        (blobs / "1dea").write_text(json.dumps({"weight_map": dict.fromkeys(SHAPES, SINGLE)}))
        (snapshot / INDEX).symlink_to("../../blobs/1dea")
    read(snapshot)


@each_reader
def test_a_link_to_something_else_is_read_as_safetensors_only(read: Reader, tmp_path: Path) -> None:
    secret = "a secret of another user"
    (tmp_path / "secret").write_text(secret)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / SINGLE).symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match=f"{folder / SINGLE} is not a valid safetensors") as error:
        read(folder)
    assert "secret" not in str(error.value).replace(str(tmp_path), "")


def _dangling(file: Path) -> None:
    file.symlink_to("../../blobs/c0ffee")


def _loop(file: Path) -> None:
    file.symlink_to(file.name)


def _device(file: Path) -> None:
    file.symlink_to("/dev/zero")


@each_reader
@pytest.mark.parametrize("name", [SINGLE, INDEX, "x.safetensors"])
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (_dangling, "does not exist .it links to ../../blobs/c0ffee, which is missing"),
        (_loop, "cannot be opened: Too many levels of symbolic links"),
        (_device, "expected a file, found a folder, device or pipe"),
        (os.mkfifo, "expected a file, found a folder, device or pipe"),
        (os.mkdir, "expected a file, found a folder, device or pipe"),
    ],
)
def test_what_is_no_file_is_named_and_not_waited_for(
    read: Reader, name: str, make: Callable[[Path], None], expected: str, tmp_path: Path
) -> None:
    make(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}:? {expected}"):
        read(tmp_path)
