# SPDX-License-Identifier: Apache-2.0
"""Broken folders of compressed weights: an error that names the file, before or at the load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.conversion.folders import random_folder
from tests.quantization.flat_layout import flat
from vllm_mindspore.conversion.convert import compress
from vllm_mindspore.conversion.whole import Model
from vllm_mindspore.device.soc import Device
from vllm_mindspore.model_executor.model_loader import rank_files
from vllm_mindspore.model_executor.model_loader.quantization_files import read_quantization
from vllm_mindspore.model_executor.models.layout import fused_sizes, layout_of
from vllm_mindspore.quantization.sharding import Rank
from vllm_mindspore.quantization.sparse_description import Layout, SparseDescription

DESCRIPTION = "quantization_description.json"
QKV = "model.layers.0.self_attn.qkv_proj"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for two ranks."""
    place = tmp_path_factory.mktemp("compressed")
    compress(random_folder(place / "whole"), place / "made", 2)
    return place / "made"


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to be broken."""
    return Path(shutil.copytree(made, tmp_path / "model"))


def read(folder: Path) -> SparseDescription:
    found = read_quantization(folder, None)
    assert isinstance(found, SparseDescription)
    return found


def check(folder: Path, device: Device = Device.CPU, *, decode: bool = False) -> None:
    """What the front end does, and a worker on `device`."""
    model, found = Model.of(folder), read(folder)
    part = model.config.of_rank(Rank(0, len(found.blocks)))
    sizes = fused_sizes(layout_of(model.hf_config.model_type, part))
    rank_files.check(found, sizes, device, decode=decode)


def describe(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads((folder / DESCRIPTION).read_text())
    change(content)
    (folder / DESCRIPTION).write_text(json.dumps(content))


def without_codec(content: dict[str, object]) -> None:
    del content["codec"]


def first_file(folder: Path) -> Path:
    return folder / "rank_1" / "model-00000.safetensors"


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(first_file(folder))
    change(tensors)
    save_file(tensors, first_file(folder))


def test_a_right_folder(folder: Path) -> None:
    check(folder)


def test_the_flat_layout(folder: Path) -> None:
    sizes = read(folder).blocks[1].sizes
    flat(folder)
    check(folder)
    found = read(folder)
    assert found.layout is Layout.FLAT
    assert found.blocks[1].sizes == sizes
    (folder / "model-rank-0-part-1.safetensors").unlink()
    with pytest.raises(ValueError, match=r"rank 0 does not fit .*\n.*missing tensor"):
        check(folder)
    for file in folder.glob("model-rank-0-*"):
        file.unlink()
    with pytest.raises(ValueError, match=r"found ranks \[1\]"):
        check(folder)


def test_sizes_that_a_flat_description_states(folder: Path) -> None:
    """They are compared with every rank's files."""
    stated = {f"{QKV}.weight.shape": [1], f"{QKV}.index.shape": [8]}
    flat(folder, **stated)
    with pytest.raises(ValueError, match=rf"{QKV}.weight in .*: expected shape \[1\], which the"):
        check(folder)


def test_npu_coding_in_the_flat_layout(folder: Path) -> None:
    flat(folder, codec=None)
    with pytest.raises(ValueError, match="compressed for an NPU: its bit coding is not public"):
        check(folder)


def test_mindie_parts(folder: Path) -> None:
    block = json.loads((folder / DESCRIPTION).read_text())["rank_0"]
    types = {name: "W8A8SC" for name, value in block.items() if isinstance(value, str)}
    (folder / DESCRIPTION).unlink()
    for rank in range(2):
        part = (folder / f"rank_{rank}").rename(folder / f"part{rank}-of-2")
        (part / "quant_model_description_w8a8sc.json").write_text(json.dumps(types))
    assert read(folder).layout is Layout.PARTS
    with pytest.raises(ValueError, match=r"partN-of-M folders\) are compressed for an NPU"):
        check(folder)
    with pytest.raises(ValueError, match="its layers have other names than here"):
        check(folder, Device.ASCEND_310P)
    (folder / "part0-of-2").rename(folder / "part2-of-2")
    with pytest.raises(ValueError, match=r"part0-of-N .* found part1-of-2, part2-of-2"):
        check(folder)


def test_npu_coding_is_checked_and_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong index is an error; lengths that do not add up are a warning; then it is refused."""
    describe(folder, without_codec)
    seen: list[str] = []
    monkeypatch.setattr(rank_files.logger, "warning", lambda text, *a: seen.append(text % a))
    with pytest.raises(ValueError, match="is not public and only the unzip unit of") as refusal:
        check(folder)
    assert "vllm-mindspore convert W8A8S_DIR --output DIR --tensor-parallel-size 2" in str(
        refusal.value
    )
    expected = f"tensor {QKV}.index: the lengths in the index add up to"
    assert any(expected in line for line in seen)
    change_tensors(folder, lambda t: t.update({f"{QKV}.index": torch.zeros(16, dtype=torch.int8)}))
    with pytest.raises(ValueError, match=r"index in .*: expected shape \[8\], .* found \[16\]"):
        check(folder)


def test_what_npus_compute(folder: Path) -> None:
    """Atlas 800I A2 takes our coding decoded alone; Atlas 300I Duo its own, or ours decoded."""
    for device in (Device.ASCEND_310P, Device.ASCEND_910B):
        check(folder, device, decode=True)
    with pytest.raises(ValueError, match=r"\(910B\) has no kernel .* VLLM_MS_SPARSE_DECODE=1"):
        check(folder, Device.ASCEND_910B)
    with pytest.raises(ValueError, match=rf"cannot read.* convert {folder} .*--to w8a8s"):
        check(folder, Device.ASCEND_310P)
    describe(folder, without_codec)
    check(folder, Device.ASCEND_310P)
    with pytest.raises(ValueError, match=r"decodes our coding alone\. Unset it"):
        check(folder, Device.ASCEND_310P, decode=True)
    for decode in (False, True):
        with pytest.raises(ValueError, match=r"not public .* on Atlas 800I A2 \(910B\)\. Serve"):
            check(folder, Device.ASCEND_910B, decode=decode)
    change_tensors(folder, lambda t: t.update({f"{QKV}.index": torch.zeros(16, dtype=torch.int8)}))
    with pytest.raises(ValueError, match=r"index in .*: expected shape \[8\], .* found \[16\]"):
        check(folder, Device.ASCEND_310P)


def test_npu_lengths_that_add_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    describe(folder, without_codec)
    for rank in range(2):
        for file in (folder / f"rank_{rank}").iterdir():
            tensors = load_file(file)
            for name, values in tensors.items():
                if name.endswith(".index"):
                    entries = np.zeros(values.numel() // 8, "<u8")
                    weight = tensors[f"{name.removesuffix('index')}weight"]
                    entries[0] = weight.numel() // 128
                    tensors[name] = torch.from_numpy(entries.view(np.int8))
                    tensors[f"{name.removesuffix('index')}weight"] = weight[
                        : 128 * int(entries[0])
                    ].clone()
            save_file(tensors, file)
    describe(folder, lambda content: [_restate(folder, content, rank) for rank in range(2)])
    seen: list[str] = []
    monkeypatch.setattr(rank_files.logger, "warning", lambda text, *a: seen.append(text % a))
    with pytest.raises(ValueError, match="compressed for an NPU"):
        check(folder)
    assert seen == []


def _restate(folder: Path, content: dict[str, dict[str, object]], rank: int) -> None:
    for file in (folder / f"rank_{rank}").iterdir():
        for name, values in load_file(file).items():
            if f"{name}.shape" in content[f"rank_{rank}"]:
                content[f"rank_{rank}"][f"{name}.shape"] = [values.numel()]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f: shutil.rmtree(f / "rank_1"), "found the folders rank_0"),
        (lambda f: (f / "rank_2").mkdir(), "found the folders rank_0, rank_1, rank_2"),
        (lambda f: (f / "rank_01").mkdir(), "rank_01"),
        (
            lambda f: (shutil.rmtree(f / "rank_1"), (f / "rank_1").write_text("rank_0")),
            r"model/rank_1: expected the folder of a rank's weights, found a file",
        ),
        (
            lambda f: (shutil.rmtree(f / "rank_1"), (f / "rank_1").symlink_to("gone")),
            r"model/rank_1: expected the folder of a rank's weights, found a file or a link that",
        ),
        (lambda f: shutil.copy(f / DESCRIPTION, f / "quant_model_description.json"), "2 quant"),
        (lambda f: first_file(f).write_bytes(b"x"), "is not a valid safetensors file"),
        (lambda f: first_file(f).unlink(), "missing tensor model.layers.0.self_attn.qkv_proj.wei"),
        (
            lambda f: shutil.copy(first_file(f), f / "rank_1" / "again.safetensors"),
            "is also in another file",
        ),
        (lambda f: (f / DESCRIPTION).write_text("{"), "expected a JSON object"),
        (
            lambda f: change_tensors(f, lambda t: t.pop(f"{QKV}.index")),
            rf"missing tensor {QKV}.index: the description says it is compressed",
        ),
        (
            lambda f: change_tensors(f, lambda t: t.update({f"{QKV}.weight": torch.zeros(4, 4)})),
            r"rank_1/model-00000.safetensors: expected I8 \[bytes\], found F32 \[4, 4\]",
        ),
        (
            lambda f: change_tensors(
                f, lambda t: t.update({f"{QKV}.weight": torch.zeros(64, dtype=torch.int8)})
            ),
            r"which the description says, found \[64\]",
        ),
        (
            lambda f: describe(
                f,
                lambda c: c["rank_1"].update({f"{QKV}.index.shape": [16]}),
            ),
            r"expected shape \[16\], which the description says, found \[8\]",
        ),
    ],
)
def test_broken_folders(folder: Path, change: Callable[[Path], object], expected: str) -> None:
    change(folder)
    with pytest.raises(ValueError, match=expected):
        check(folder)


def test_an_index_for_other_sizes(folder: Path) -> None:
    """Description and file agree with each other, and not with the model."""
    config = json.loads((folder / "config.json").read_text())
    config["intermediate_size"] = 1024
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"gate_up_proj.index in .*: expected 64 bytes, 8 for each"
    ):
        check(folder)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_flips_of_the_description(folder: Path, data: st.DataObject) -> None:
    """Any byte changed: it is read as another description, or refused as ValueError."""
    file = folder / DESCRIPTION
    before = file.read_bytes()
    changed = bytearray(before)
    changed[data.draw(st.integers(0, len(before) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(changed)
    try:
        check(folder)
    except ValueError:
        pass
    finally:
        file.write_bytes(before)
