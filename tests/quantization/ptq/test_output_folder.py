# SPDX-License-Identifier: Apache-2.0
"""The checkpoint that is written: its files, and when it appears."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from tests.quantization.ptq.conftest import FloatFolder
from tests.quantization.ptq.jobs import make, make_job
from vllm_mindspore.model_executor.model_loader.quantization_files import read_description
from vllm_mindspore.quantization.description import (
    DYNAMIC,
    FLOAT,
    SPARSE,
    STATIC,
    WEIGHT_INT4,
    Tool,
)
from vllm_mindspore.quantization.kv_cache import is_int8
from vllm_mindspore.quantization.ptq import engine, output_folder, report, tensor_files
from vllm_mindspore.quantization.ptq.float_checkpoint import FloatCheckpoint
from vllm_mindspore.quantization.ptq.policy import Suppression, policy
from vllm_mindspore.quantization.ptq.report import NOT_MEASURED, Evaluation, Origin, Sizes
from vllm_mindspore.quantization.ptq.sparsity import Method, Sparsity

pytestmark = pytest.mark.usefixtures("mindspore_runtime")

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def source(float_folder: FloatFolder, tmp_path: Path) -> Path:
    """A model folder with other files in it."""
    folder = Path(shutil.copytree(float_folder("qwen3"), tmp_path / "source"))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "notes.txt").write_text("kept")
    (folder / "pytorch_model.bin").write_bytes(b"other weights")
    return folder


def read(file: Path) -> Any:
    return json.loads(file.read_text("utf-8"))


def test_files_of_golden_stick(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "made"
    before = {file: file.stat().st_mtime_ns for file in source.iterdir()}
    tensors = make(make_job(source, STATIC, Suppression.NONE), target)
    assert {file.name for file in target.iterdir()} == {
        *("config.json", "generation_config.json", "tokenizer.json", "notes.txt"),
        *("model.safetensors.index.json", "quant-model-00001-of-00001.safetensors"),
        *("quantization_description.json", output_folder.REPORT, output_folder.PAGE),
    }
    assert [file.name for file in tmp_path.iterdir() if "partial" in file.name] == []
    assert {file: file.stat().st_mtime_ns for file in source.iterdir()} == before
    assert read(target / "config.json") == read(source / "config.json")
    index = read(target / "model.safetensors.index.json")
    assert set(index["weight_map"]) == set(tensors)
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
    types = read(target / "quantization_description.json")
    assert set(types) == set(tensors)
    assert types["model.embed_tokens.weight"] == types["model.norm.weight"] == "FLOAT"
    assert types["model.layers.0.mlp.up_proj.deq_scale"] == "W8A8"
    with safe_open(target / "quant-model-00001-of-00001.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "ms"}


def test_the_report(source: Path, tmp_path: Path) -> None:
    tensors = make(make_job(source, STATIC, Suppression.SMOOTH), tmp_path / "made")
    found = read(tmp_path / "made" / output_folder.REPORT)
    assert found["sizes"]["bytes_after"] == sum(tensor.nbytes for tensor in tensors.values())
    assert (found["options"], found["calibration"]) == ({"scheme": "x"}, {"source": "y"})
    assert (found["writer"], found["evaluation"]) == ("golden-stick", NOT_MEASURED)
    assert len(found["linears"]) == 21
    entry = next(e for e in found["linears"] if e["name"] == "model.layers.1.mlp.down_proj")
    stored = [tensors[f"{entry['name']}.{part}"].nbytes for part in ("weight", "deq_scale")]
    assert entry["bytes_after"] > sum(stored)
    assert entry["bytes_before"] == 96 * 200 * 4
    assert (entry["alpha"], entry["outlier_suppression"], entry["type"]) == (0.5, "smooth", "W8A8")
    assert 20 < entry["output_sqnr_db"] < entry["weight_sqnr_db"] < 60
    assert 0.1 < entry["smoothing"]["min"] < entry["smoothing"]["max"] < 100


def test_zeros_are_those_of_the_written_weights(source: Path, tmp_path: Path) -> None:
    """Of sparse layers; more than asked for where small weights are rounded to zero, too."""
    some, many = (Sparsity(share, Method.WANDA) for share in (0.1, 0.6))
    patterns = {
        "down_proj": policy(SPARSE, Suppression.NONE, sparsity=many),
        "o_proj": policy(STATIC, Suppression.NONE),
    }
    job = make_job(source, SPARSE, Suppression.NONE, sparsity=some, **patterns)
    tensors = make(job, tmp_path / "made")
    found = read(tmp_path / "made" / output_folder.REPORT)["linears"]
    assert len(found) == 21
    for entry in found:
        weight = tensors[f"{entry['name']}.weight"]
        assert weight.dtype == torch.int8
        zeros = int((weight == 0).sum()) / weight.numel()
        assert entry["zeros"] == (None if "o_proj" in entry["name"] else zeros)
        if "down_proj" in entry["name"]:
            assert 0.55 < zeros < 0.65


def test_a_quantized_head_of_a_tied_model(source: Path, tmp_path: Path) -> None:
    assert read(source / "config.json")["tie_word_embeddings"] is True
    tensors = make(make_job(source, STATIC, Suppression.NONE, head=True), tmp_path / "made")
    assert read(tmp_path / "made" / "config.json")["tie_word_embeddings"] is False
    assert tensors["lm_head.weight"].dtype == torch.int8
    assert tensors["model.embed_tokens.weight"].dtype == torch.float32
    description = read_description(tmp_path / "made")
    assert description is not None
    assert description.module_types()["lm_head"] == STATIC


def test_files_of_modelslim(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make(make_job(source, STATIC, Suppression.NONE, Tool.MODELSLIM), tmp_path / "made")
    names = {file.name for file in (tmp_path / "made").iterdir()}
    assert "quant_model_weight_w8a8.safetensors" in names
    assert "quant_model_weight_w8a8.safetensors.index.json" in names
    types = read(tmp_path / "made" / "quant_model_description.json")
    assert (types["model_quant_type"], types["version"]) == ("W8A8", "1.0.0")
    assert set(whole) <= set(types)
    monkeypatch.setattr(tensor_files, "SPLIT_BYTES", 100_000)
    monkeypatch.setattr(tensor_files.split, "__defaults__", (100_000,))
    parts = make(make_job(source, STATIC, Suppression.NONE, Tool.MODELSLIM), tmp_path / "split")
    files = sorted((tmp_path / "split").glob("*.safetensors"))
    assert files[0].name == f"quant_model_weight_w8a8-00001-of-{len(files):05d}.safetensors"
    assert len(files) > 3
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


@pytest.mark.parametrize("tool", Tool)
def test_an_int8_cache_of_float_layers(tool: Tool, source: Path, tmp_path: Path) -> None:
    job = make_job(source, FLOAT, Suppression.NONE, tool, int8_cache=True)
    tensors = make(job, tmp_path / "made")
    description = read_description(tmp_path / "made")
    assert description is not None
    assert is_int8(description)
    assert set(description.module_types().values()) == {FLOAT}
    names = [name for name, kind in description.types.items() if kind == "C8"]
    assert len(names) == 3 * 2 * 2  # layers, keys and values, scale and offset
    assert {tensors[name].dtype for name in names} == {torch.float32}
    original = FloatCheckpoint(source)
    for name in original.names:
        assert torch.equal(tensors[name], original.any(name)), name
    entries = read(tmp_path / "made" / output_folder.REPORT)["kv_cache"]
    assert len(entries) == 6
    assert all(20 < entry["sqnr_db"] < 60 for entry in entries)


def test_int4_is_marked_in_the_file(source: Path, tmp_path: Path) -> None:
    tensors = make(make_job(source, WEIGHT_INT4, Suppression.NONE), tmp_path / "made")
    name = "model.layers.0.mlp.up_proj.weight"
    assert tensors[name].shape == (96, 100)
    with safe_open(next((tmp_path / "made").glob("*.safetensors")), "pt") as opened:
        assert opened.metadata()[name] == "Int4"
        assert opened.metadata()["format"] == "ms"


def test_places_that_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (tmp_path / "full").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full" / "x").write_text("")
    (tmp_path / "file").write_text("")
    output_folder.check_place(tmp_path / "empty", source)
    for name in ("full", "file"):
        with pytest.raises(ValueError, match="is not an empty folder; choose another"):
            output_folder.check_place(tmp_path / name, source)
    for name in ("source", "source/quantized"):
        with pytest.raises(ValueError, match="in the model's own folder"):
            output_folder.check_place(tmp_path / name, source)


def test_what_is_left_of_finished_work_is_known(source: Path, tmp_path: Path) -> None:
    """Killed between the folder's appearance and the removal of its parts."""
    target, job = tmp_path / "made", make_job(source, STATIC, Suppression.NONE)
    with closing(output_folder.open_work(job, target)) as work:
        engine.run(job, work, lambda part: None)
        assert not output_folder.is_complete(job, target)
        output_folder.write(job, work, {}, {}, target, work.folder)
    assert output_folder.is_complete(job, target)
    assert not output_folder.is_complete(job, target, ranks=1)
    assert not output_folder.is_complete(make_job(source, DYNAMIC, Suppression.NONE), target)
    (tmp_path / "made.partial" / "output").mkdir()  # of a run into a folder that was filled since
    assert not output_folder.is_complete(job, target)
    output_folder.remove_work(target)
    assert not output_folder.is_complete(job, target)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["made", "source"]


def test_the_checkpoint_is_measured_before_it_appears(source: Path, tmp_path: Path) -> None:
    job, target = make_job(source, FLOAT, Suppression.NONE, int8_cache=True), tmp_path / "made"
    found = {"accuracy": {"float": 0.5, "quantized": 0.25}, "perplexity": None}

    def evaluate(folder: Path) -> Evaluation:
        assert not target.exists()
        assert (folder / "quantization_description.json").exists()
        return found

    with closing(output_folder.open_work(job, target)) as work:
        engine.run(job, work, lambda part: None)
        output_folder.write(job, work, {}, {}, target, work.folder, evaluate)
    assert read(target / output_folder.REPORT)["evaluation"] == found


def test_a_full_disk_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(source, STATIC, Suppression.NONE)
    target = tmp_path / "not" / "there" / "yet"
    output_folder.check_room(job, target)
    needed = output_folder.needed_bytes(job)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(0, 0, needed - 1))
    with pytest.raises(ValueError, match=r"has \S+ GB free; \S+ GB are needed"):
        output_folder.check_room(job, target)


def test_the_needed_bytes_suffice(source: Path, tmp_path: Path) -> None:
    job = make_job(source, STATIC, Suppression.NONE, head=True)
    tensors = make(job, tmp_path / "made")
    written = sum(tensor.nbytes for tensor in tensors.values())
    margin = output_folder.needed_bytes(job) - 2 * written
    assert 0 <= margin < 1.2 * (1 << 24)


def test_widened_ranges_are_noted() -> None:
    entries = [{"name": name, "input_range_widened": name == "b"} for name in "abc"]
    found = report.content(Origin("1", "golden-stick", {}, {}), entries, Sizes(2, 1))
    (note,) = found["notes"]
    assert note.startswith("b: its input has one sign; the range was widened")
