# SPDX-License-Identifier: Apache-2.0
"""Sparse checkpoints that are compressed when they are finished."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.quantization.ptq.conftest import FloatFolder
from tests.quantization.ptq.jobs import make, make_job
from vllm_mindspore.conversion import compressed_output, convert
from vllm_mindspore.model_executor.model_loader.quantization_files import read_quantization
from vllm_mindspore.quantization.description import DYNAMIC, SPARSE
from vllm_mindspore.quantization.ptq import engine, output_folder
from vllm_mindspore.quantization.ptq.output_folder import PAGE, REPORT
from vllm_mindspore.quantization.ptq.policy import Suppression, policy
from vllm_mindspore.quantization.ptq.report import Evaluation
from vllm_mindspore.quantization.ptq.sparsity import Method, Sparsity
from vllm_mindspore.quantization.sparse_description import SparseDescription

SPARSITY = Sparsity(0.6, Method.WANDA)


@pytest.mark.usefixtures("mindspore_runtime")
def test_it_is_the_sparse_folder_compressed(float_folder: FloatFolder, tmp_path: Path) -> None:
    """Whatever an interrupted run has left, and with a report of its own."""
    job = make_job(float_folder("qwen3"), SPARSE, Suppression.NONE, sparsity=SPARSITY)
    make(job, tmp_path / "sparse")
    convert.compress(tmp_path / "sparse", tmp_path / "expected", 2)
    work = output_folder.open_work(job, tmp_path / "made")
    engine.run(job, work, lambda part: None)
    for left in ("whole", "compressed", "compressed.converting"):
        (work.folder / left).mkdir()
        (work.folder / left / "x").touch()
    finished: list[str] = []
    compressed_output.write(
        *(job, work, {"scheme": "x"}, {"source": "y"}, tmp_path / "made", 2), finished.append
    )
    work.close()
    assert len(finished) == compressed_output.parts(job)
    files = [f.relative_to(tmp_path / "expected") for f in (tmp_path / "expected").rglob("*.*")]
    assert len([name for name in files if name.suffix == ".safetensors"]) > 2
    for name in files:
        if name.name not in (REPORT, PAGE):
            expected = (tmp_path / "expected" / name).read_bytes()
            assert (tmp_path / "made" / name).read_bytes() == expected, name
    _check_report(tmp_path / "made")


def _check_report(folder: Path) -> None:
    found = json.loads((folder / REPORT).read_text())
    described = json.loads((folder / "quantization_description.json").read_text())
    compression = found["compression"]
    layers = compression["layers"]
    assert compression["ranks"] == 2
    num_layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    assert len(layers) == 2 * 4 * num_layers
    for layer in layers:
        block = described[f"rank_{layer['rank']}"]
        streams = (block[f"{layer['name']}.{part}.shape"][0] for part in ("weight", "index"))
        assert layer["bytes"] == sum(streams)
        assert SPARSITY.share - 0.1 < layer["zeros"] < SPARSITY.share + 0.1
    weights = sum(layer["shape"][0] * layer["shape"][1] for layer in layers)
    assert compression["ratio"] == sum(layer["bytes"] for layer in layers) / weights
    total = sum(f.stat().st_size for f in folder.rglob("*.safetensors"))
    assert 0 < total - found["sizes"]["bytes_after"] < 0.1 * total  # headers
    assert "Compressed weights" in (folder / PAGE).read_text()


@pytest.mark.usefixtures("mindspore_runtime")
def test_the_compressed_folder_is_measured(float_folder: FloatFolder, tmp_path: Path) -> None:
    """Not the one it was made of, which has another dtype; before it appears."""
    job = make_job(float_folder("qwen3"), SPARSE, Suppression.NONE, sparsity=SPARSITY)
    output = tmp_path / "made"
    measured: list[dict[Path, bytes]] = []

    def evaluate(folder: Path) -> Evaluation:
        assert not output.exists()
        assert isinstance(read_quantization(folder, None), SparseDescription)
        measured.append(_weights(folder))
        return {"accuracy": None, "perplexity": {"float": 1.5, "quantized": 1.75}}

    with closing(output_folder.open_work(job, output)) as work:
        engine.run(job, work, lambda part: None)
        compressed_output.write(job, work, {}, {}, output, 2, lambda part: None, evaluate)
    assert measured == [_weights(output)]
    report = json.loads((output / REPORT).read_text())
    assert report["evaluation"] == {
        "accuracy": None,
        "perplexity": {"float": 1.5, "quantized": 1.75},
    }
    assert "1.7500" in (output / PAGE).read_text()


def _weights(folder: Path) -> dict[Path, bytes]:
    files = folder.rglob("*.safetensors")
    return {file.relative_to(folder): file.read_bytes() for file in files}


def test_what_is_refused(float_folder: FloatFolder) -> None:
    job = make_job(float_folder("qwen3"), SPARSE, Suppression.NONE, sparsity=SPARSITY)
    compressed_output.check(job, 2)
    for ranks, message in ((0, "expected a number from 1"), (3, "among 3 ranks")):
        with pytest.raises(ValueError, match=message):
            compressed_output.check(job, ranks)
    others = {
        "beside sparse layers, those of w8a8sc may be": policy(DYNAMIC, Suppression.NONE),
        "use another method, or w8a8s": policy(SPARSE, Suppression.OS_PLUS, sparsity=SPARSITY),
    }
    for message, chosen in others.items():
        with pytest.raises(ValueError, match=message):
            compressed_output.check(replace(job, policies=dict.fromkeys(job.policies, chosen)), 2)
