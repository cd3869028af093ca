# SPDX-License-Identifier: Apache-2.0
"""Compressed folders hold what they were made of, for every number of ranks, and give it back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.conversion.folders import (
    CONFIG,
    DESCRIPTIONS,
    change_rank,
    random_folder,
    rank_tensors,
    whole_tensors,
)
from vllm_mindspore.conversion import ranks
from vllm_mindspore.conversion.convert import Target, compress, convert, open_whole
from vllm_mindspore.model_executor.model_loader import quantization_files, rank_files
from vllm_mindspore.quantization import sparse_codec
from vllm_mindspore.quantization.description import STATIC, Tool
from vllm_mindspore.quantization.sparse_codec import Compressed
from vllm_mindspore.quantization.sparse_description import SparseDescription

LAYER = "model.layers.0"
HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM = 96, 320, 4, 2, 32


def description(folder: Path) -> SparseDescription:
    found = quantization_files.read_description(folder)
    assert isinstance(found, SparseDescription)
    return found


def weight(tensors: dict[str, torch.Tensor], module: str, outer: int, inner: int) -> np.ndarray:
    found = Compressed(tensors[f"{module}.weight"].numpy(), tensors[f"{module}.index"].numpy())
    return sparse_codec.decode(found, outer, inner)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_ranks_have(tmp_path: Path, count: int) -> None:
    """By the rules of the page, with numpy alone; four ranks share two key heads."""
    source = whole_tensors(random_folder(tmp_path / "whole"))
    compress(tmp_path / "whole", tmp_path / "made", count)
    queries, keys, inner = (
        HEADS // count * HEAD_DIM,
        max(1, KV_HEADS // count) * HEAD_DIM,
        INNER // count,
    )
    for rank in range(count):
        found, name = rank_tensors(tmp_path / "made", rank), f"{LAYER}.self_attn"
        head = rank * KV_HEADS // count
        rows = [slice(rank * queries, (rank + 1) * queries)]
        rows += [slice(head * HEAD_DIM, head * HEAD_DIM + keys)] * 2
        parts = list(zip("qkv", rows, strict=True))
        for part in ("weight", "deq_scale", "quant_bias"):
            expected = torch.cat([source[f"{name}.{p}_proj.{part}"][r] for p, r in parts])
            if part == "weight":
                made = weight(found, f"{name}.qkv_proj", queries + 2 * keys, HIDDEN)
            else:
                made = found[f"{name}.qkv_proj.{part}"].numpy()
            assert np.array_equal(made, expected.numpy())
        columns = slice(rank * inner, (rank + 1) * inner)
        down = weight(found, f"{LAYER}.mlp.down_proj", HIDDEN, inner)
        assert np.array_equal(down, source[f"{LAYER}.mlp.down_proj.weight"][:, columns].numpy())
        quant_bias = found[f"{LAYER}.mlp.down_proj.quant_bias"]
        whole_bias = source[f"{LAYER}.mlp.down_proj.quant_bias"]
        assert torch.equal(quant_bias, whole_bias if rank == 0 else torch.zeros_like(whole_bias))
        assert found[f"{LAYER}.mlp.down_proj.input_scale"].shape == (inner,)
        for table in ("model.embed_tokens.weight", "lm_head.weight"):
            padded = torch.cat([source[table], torch.zeros(28, HIDDEN, dtype=torch.float16)])
            assert torch.equal(found[table], padded.chunk(count)[rank])
        assert all(v.dtype == torch.float16 for n, v in found.items() if "norm" in n)


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "int8 head": {"head": True},
    "a float layer": {"floats": ("q_proj", "k_proj", "v_proj", "1.mlp.down_proj")},
    "scales by channel": {"per_channel": True},
    "W8A8": {"kind": STATIC},
    "biases": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]},
    "folded biases": {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "tool": Tool.MODELSLIM,
    },
    "one gate and up": {
        "model_type": "glm4",
        "architectures": ["Glm4ForCausalLM"],
        "pad_token_id": 0,
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_there_and_back(tmp_path: Path, variant: str) -> None:
    """To two ranks, to four, to one, and to the tensors it was made of."""
    options = VARIANTS[variant]
    source = random_folder(tmp_path / "whole", **options)
    compress(source, tmp_path / "one", 1)
    compress(source, tmp_path / "two", 2)
    compress(tmp_path / "two", tmp_path / "four", 4)
    compress(tmp_path / "four", tmp_path / "one again", 1)
    direct, detour = (rank_tensors(tmp_path / name, 0) for name in ("one", "one again"))
    assert direct.keys() == detour.keys()
    assert all(torch.equal(direct[name], detour[name]) for name in direct)
    target = Target.STATIC if options.get("kind") == STATIC else Target.SPARSE
    convert(tmp_path / "four", tmp_path / "back", target)
    before, after = whole_tensors(source), whole_tensors(tmp_path / "back")
    dropped = (".weight_scale", ".bias") if "tool" in options else (".weight_scale",)
    missing = before.keys() - after.keys()
    assert all(name.endswith(dropped) for name in missing)
    assert after.keys() <= before.keys()
    for name, values in after.items():
        assert torch.equal(values, before[name].to(values.dtype)), name
    tool = options.get("tool", Tool.GOLDEN_STICK)
    types = json.loads((source / DESCRIPTIONS[tool]).read_text())
    made = json.loads((tmp_path / "back" / DESCRIPTIONS[tool]).read_text())
    assert made == {name: kind for name, kind in types.items() if name in after}


def test_the_folder(tmp_path: Path) -> None:
    """Other files are copied, config.json says float16, the description says coding and sizes."""
    random_folder(tmp_path / "whole", dtype=torch.bfloat16, torch_dtype="bfloat16")
    seen: list[str] = []
    summary = compress(tmp_path / "whole", tmp_path / "made", 2, seen.append)
    assert seen == ["layer 0", "layer 1", "other tensors"]
    made = tmp_path / "made"
    config = json.loads((made / "config.json").read_text())
    assert config == CONFIG | {"dtype": "float16"}
    names = {file.name for file in made.iterdir()}
    assert names == {
        *("config.json", "tokenizer.json", "quantization_description.json", "rank_0", "rank_1")
    }
    found = description(made)
    assert found.own_codec
    assert not found.encoded
    stored = rank_tensors(made, 1)
    assert set(stored) == set(found.blocks[1].types)
    for module, sizes in found.blocks[1].sizes.items():
        assert sizes == (stored[f"{module}.weight"].numel(), stored[f"{module}.index"].numel())
    layers = [layer for layer in summary.layers if layer.rank == 1]
    assert [layer.module for layer in layers] == list(found.blocks[1].sizes)
    for layer in layers:
        assert (layer.stream_bytes, layer.index_bytes) == found.blocks[1].sizes[layer.module]
        assert 0.45 < layer.sparsity < 0.55
    everything = [*rank_tensors(made, 0).values(), *stored.values()]
    assert summary.bytes_after == sum(values.nbytes for values in everything)
    assert summary.notes == ()  # bfloat16 scales that float16 holds, too
    assert list(rank_files.notices(found)) == []


def test_scales_that_float16_rounds(tmp_path: Path) -> None:
    """deq_scale takes up what rounding did to the one scale of the input."""
    source = random_folder(tmp_path / "whole", dtype=torch.float32)
    tensors, name = whole_tensors(source), f"{LAYER}.self_attn.o_proj"
    tensors[f"{name}.input_scale"] = torch.full((HEADS * HEAD_DIM,), 0.1)
    save_file(tensors, source / "model.safetensors")
    summary = compress(source, tmp_path / "made", 1)
    assert summary.notes == (f"{name}: input_scale was rounded to float16, deq_scale follows it",)
    found = rank_tensors(tmp_path / "made", 0)
    exact = tensors[f"{name}.deq_scale"] / 0.1
    rounded = found[f"{name}.deq_scale"] / found[f"{name}.input_scale"][0].float()
    torch.testing.assert_close(rounded, exact, rtol=1e-6, atol=0)


def broken(folder: Path, name: str, values: torch.Tensor | None, *, types: bool = True) -> Path:
    """The folder with a tensor changed, removed or added."""
    tensors = whole_tensors(folder)
    file = folder / DESCRIPTIONS[Tool.GOLDEN_STICK]
    described = json.loads(file.read_text())
    if values is None:
        del tensors[name], described[name]
    else:
        tensors[name] = values
        if types:
            described[name] = described.get(f"{name.rpartition('.')[0]}.weight", "FLOAT")
    save_file(tensors, folder / "model.safetensors")
    file.write_text(json.dumps(described))
    return folder


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            f"{LAYER}.mlp.up_proj.beta",
            torch.ones(HIDDEN),
            "beta .Outlier Suppression.. has no place",
        ),
        (f"{LAYER}.mlp.up_proj.smooth", torch.ones(1), "mlp.up_proj.smooth has no place"),
        ("model.extra.weight", torch.ones(1), "model.extra.weight has no place"),
        (f"{LAYER}.mlp.up_proj.deq_scale", None, "missing tensor .*up_proj.deq_scale"),
        (f"{LAYER}.mlp.up_proj.weight", None, "does not say what .*up_proj is|missing tensor"),
        ("model.norm.weight", None, "missing tensor model.norm.weight"),
        ("model.norm.weight", torch.full((HIDDEN,), 1e6), "found 96 NaN or Inf .*torch.float16"),
        (f"{LAYER}.mlp.up_proj.deq_scale", torch.full((INNER,), torch.nan), "finite numbers"),
        (f"{LAYER}.mlp.up_proj.deq_scale", torch.ones(INNER - 1), r"expected shape \[320\]"),
        (f"{LAYER}.mlp.up_proj.weight", torch.ones(INNER, HIDDEN), "expected dtype I8, found F32"),
        (
            f"{LAYER}.mlp.up_proj.input_scale",
            torch.ones(HIDDEN).half(),
            "up_proj.input_scale: expected the values of .*gate_proj.input_scale",
        ),
        (f"{LAYER}.mlp.down_proj.input_scale", torch.full((INNER,), 1e-9), "zero in float16"),
        (f"{LAYER}.mlp.down_proj.input_offset", torch.full((INNER,), 0.5), "whole numbers"),
        (f"{LAYER}.mlp.down_proj.input_offset", torch.full((INNER,), 200.0), "int8 zero point"),
    ],
)
def test_what_cannot_be_compressed(
    tmp_path: Path, name: str, values: torch.Tensor | None, message: str
) -> None:
    broken(random_folder(tmp_path / "whole"), name, values)
    with pytest.raises(ValueError, match=message):
        compress(tmp_path / "whole", tmp_path / "made", 2)
    assert {file.name for file in tmp_path.iterdir()} == {"whole"}


def test_places_and_sizes_that_are_refused_before_any_work(tmp_path: Path) -> None:
    source = random_folder(tmp_path / "whole")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ValueError, match="exists and is not an empty folder"):
        compress(source, tmp_path / "full", 1)
    with pytest.raises(ValueError, match="num_attention_heads=4 cannot be divided among 3 ranks"):
        compress(source, tmp_path / "made", 3)
    with pytest.raises(ValueError, match="w8a8s folders are divided when they are loaded"):
        convert(source, tmp_path / "made", Target.SPARSE, 2)
    with pytest.raises(ValueError, match="is no folder"):
        open_whole(tmp_path / "none")
    (source / DESCRIPTIONS[Tool.GOLDEN_STICK]).unlink()
    with pytest.raises(ValueError, match=r"found float weights\. Quantize the float model first"):
        compress(source, tmp_path / "made", 1)


def test_other_types_are_refused(tmp_path: Path) -> None:
    random_folder(tmp_path / "whole", kind="W8A16")
    with pytest.raises(ValueError, match=r"q_proj has the type W8A16; what can be compressed"):
        compress(tmp_path / "whole", tmp_path / "made", 1)


def test_a_full_disk_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = random_folder(tmp_path / "whole")
    monkeypatch.setattr(ranks, "needed_bytes", lambda whole, count: 1 << 60)
    with pytest.raises(ValueError, match=r"GB free; up to .* GB are needed"):
        compress(source, tmp_path / "made", 1)


def test_replicas_that_differ(tmp_path: Path) -> None:
    compress(random_folder(tmp_path / "whole"), tmp_path / "made", 4)
    file = tmp_path / "made" / "rank_1" / "model-00000.safetensors"
    tensors = {n: v for n, v in rank_tensors(tmp_path / "made", 1).items() if ".layers.0." in n}
    tensors[f"{LAYER}.self_attn.qkv_proj.deq_scale"][-1] += 1
    save_file(tensors, file)
    with pytest.raises(ValueError, match=r"v_proj of rank 1 differs from that of rank 0"):
        convert(tmp_path / "made", tmp_path / "back", Target.SPARSE)


def test_a_broken_stream_is_named(tmp_path: Path) -> None:
    compress(random_folder(tmp_path / "whole"), tmp_path / "made", 1)
    file = tmp_path / "made" / "rank_0" / "model-00001.safetensors"
    tensors = {n: v for n, v in rank_tensors(tmp_path / "made", 0).items() if ".layers.1." in n}
    tensors["model.layers.1.mlp.down_proj.index"][0] += 1
    save_file(tensors, file)
    message = rf"{file.parent} does.*\n.*1.mlp.down_proj.weight in {file.name}: .*tile 1"
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "made", tmp_path / "back", Target.SPARSE)


def doubled(values: torch.Tensor) -> torch.Tensor:
    return values * 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("self_attn.qkv_proj.input_scale", "q_proj.input_scale of rank 1 differs"),
        ("mlp.down_proj.deq_scale", "down_proj.deq_scale of rank 1 differs from .* rank 0"),
        ("input_layernorm.weight", "input_layernorm.weight of rank 1 differs"),
    ],
)
def test_ranks_that_contradict_each_other(tmp_path: Path, name: str, message: str) -> None:
    compress(random_folder(tmp_path / "whole"), tmp_path / "made", 2)
    change_rank(tmp_path / "made", 1, f"{LAYER}.{name}", doubled)
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "made", tmp_path / "back", Target.SPARSE)
    assert {file.name for file in tmp_path.iterdir()} == {"whole", "made"}


def test_scales_of_inputs_that_ranks_have_of_their_own(tmp_path: Path) -> None:
    """One number each: the whole layer has one for every input."""
    compress(random_folder(tmp_path / "whole"), tmp_path / "made", 2)
    name = f"{LAYER}.mlp.down_proj.input_scale"
    change_rank(tmp_path / "made", 1, name, doubled)
    convert(tmp_path / "made", tmp_path / "back", Target.SPARSE)
    before = whole_tensors(tmp_path / "whole")
    expected = before[name].expand(INNER).clone()
    expected[INNER // 2 :] *= 2
    assert torch.equal(whole_tensors(tmp_path / "back")[name], expected)


def test_a_bias_that_the_first_rank_alone_has(tmp_path: Path) -> None:
    options: dict[str, Any] = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    compress(random_folder(tmp_path / "whole", mlp_bias=True, **options), tmp_path / "made", 2)
    name = f"{LAYER}.mlp.down_proj.bias"
    file = tmp_path / "made" / "rank_1" / "model-00000.safetensors"
    tensors = {n: v for n, v in rank_tensors(tmp_path / "made", 1).items() if f"{LAYER}." in n}
    del tensors[name]
    save_file(tensors, file)
    described = tmp_path / "made" / DESCRIPTIONS[Tool.GOLDEN_STICK]
    content = json.loads(described.read_text())
    del content["rank_1"][name]
    described.write_text(json.dumps(content))
    convert(tmp_path / "made", tmp_path / "back", Target.SPARSE)
    assert torch.equal(
        whole_tensors(tmp_path / "back")[name], whole_tensors(tmp_path / "whole")[name]
    )


def test_floats_that_the_model_holds_and_float16_does_not(tmp_path: Path) -> None:
    source = random_folder(tmp_path / "whole")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    broken(source, "model.norm.weight", torch.full((HIDDEN,), 1e6))
    with pytest.raises(ValueError, match=r"1e.06 is not finite in float16"):
        compress(source, tmp_path / "made", 2)


def test_folders_of_others_are_left(tmp_path: Path) -> None:
    """What is beside the output under the names that makers of folders use."""
    source = random_folder(tmp_path / "made.converting")
    with pytest.raises(ValueError, match=r"made\.converting exists: another conversion"):
        compress(source, tmp_path / "made", 1)
    assert whole_tensors(source)
    kept = tmp_path / "other.partial"
    kept.mkdir()
    compress(source, tmp_path / "other", 1)
    assert kept.is_dir()


def test_a_report_of_the_source_is_not_taken_along(tmp_path: Path) -> None:
    source = random_folder(tmp_path / "whole")
    for name in ("quantization_report.json", "quantization_report.html", "generation_config.json"):
        (source / name).write_text("{}")
    compress(source, tmp_path / "made", 1)
    made = {file.name for file in (tmp_path / "made").iterdir()}
    assert not any("report" in name for name in made)
    assert "generation_config.json" in made
