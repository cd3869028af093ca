# SPDX-License-Identifier: Apache-2.0
"""Parts of all ranks make the whole tensors again; files have the shapes of the whole model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vllm_mindspore.bridge import to_torch
from vllm_mindspore.model_executor.model_loader.safetensors import SafetensorsSource
from vllm_mindspore.model_executor.model_loader.shards import PaddedVocabulary, Shards
from vllm_mindspore.quantization import sparse_codec
from vllm_mindspore.quantization.description import Description, Tool
from vllm_mindspore.quantization.schemes.base import Projections
from vllm_mindspore.quantization.schemes.w8a8sc import W8A8SC
from vllm_mindspore.quantization.sharding import Rank, padded_vocabulary, vocabulary_rows

VOCABULARY, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INNER, GROUP = 100, 24, 4, 2, 8, 256, 64
LAYER = "model.layers.0"


def described(tool: Tool, **types: str) -> Description:
    names = {name.replace("__", "."): kind for name, kind in types.items()}
    return Description(Path("description.json"), tool, names, {})


def ranks(count: int, description: Description | None = None) -> list[Shards]:
    return [Shards(Rank(i, count), VOCABULARY, KV_HEADS, description) for i in range(count)]


def numbered(*shape: int) -> torch.Tensor:
    return torch.arange(1.0, 1 + torch.Size(shape).numel()).reshape(shape)


def parts(name: str, whole: torch.Tensor, shards: list[Shards]) -> list[torch.Tensor]:
    """Of all ranks; each finds the whole by the shape of its part."""
    found = [rank.part(name, whole) for rank in shards]
    for rank, part in zip(shards, found, strict=True):
        assert tuple(whole.shape) in rank.whole_shapes(name, [tuple(part.shape)])
        assert part.is_contiguous()
    return found


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(
    ("name", "shape", "axis"),
    [
        ("self_attn.q_proj.weight", (HEADS * HEAD_DIM, HIDDEN), 0),
        ("self_attn.q_proj.bias", (HEADS * HEAD_DIM,), 0),
        ("self_attn.o_proj.weight", (HIDDEN, HEADS * HEAD_DIM), 1),
        ("mlp.up_proj.weight", (INNER, HIDDEN), 0),
        ("mlp.down_proj.weight", (HIDDEN, INNER), 1),
        ("mlp.down_proj.input_scale", (INNER,), 0),
        ("mlp.up_proj.deq_scale", (INNER,), 0),
        ("mlp.up_proj.weight_scale", (INNER, 1), 0),
    ],
)
def test_divided(name: str, shape: tuple[int, ...], axis: int, count: int) -> None:
    whole = numbered(*shape)
    found = parts(f"{LAYER}.{name}", whole, ranks(count))
    assert torch.equal(torch.cat(found, axis), whole)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("input_layernorm.weight", (HIDDEN,)),
        ("self_attn.q_norm.weight", (HEAD_DIM,)),
        ("self_attn.q_proj.input_scale", (1,)),
        ("self_attn.k_proj.kv_cache_scale", (1,)),
        ("mlp.down_proj.weight_scale", (HIDDEN,)),
        ("mlp.down_proj.weight_scale", (HIDDEN, 1)),
        ("mlp.down_proj.deq_scale", (HIDDEN,)),
    ],
)
def test_whole_on_every_rank(name: str, shape: tuple[int, ...]) -> None:
    whole = numbered(*shape)
    for part in parts(f"{LAYER}.{name}", whole, ranks(2)):
        assert part is whole


@pytest.mark.parametrize("name", ["o_proj.bias", "down_proj.quant_bias"])
def test_what_is_added_once_is_on_the_first_rank(name: str) -> None:
    whole = numbered(HIDDEN)
    first, second = parts(f"{LAYER}.x.{name}", whole, ranks(2))
    assert first is whole
    assert not second.any()


@pytest.mark.parametrize("name", ["k_proj.weight", "v_proj.bias", "k_proj.kv_cache_scale"])
def test_ranks_that_outnumber_kv_heads_share_them(name: str) -> None:
    whole = numbered(KV_HEADS * HEAD_DIM, *([HIDDEN] if name.endswith("weight") else []))
    found = parts(f"{LAYER}.self_attn.{name}", whole, ranks(4))
    heads = whole.split(HEAD_DIM)
    for rank, head in enumerate((0, 0, 1, 1)):
        assert torch.equal(found[rank], heads[head])


def test_gate_above_up_in_one_tensor() -> None:
    whole = numbered(2 * INNER, HIDDEN)
    found = parts(f"{LAYER}.mlp.gate_up_proj.weight", whole, ranks(2))
    gates, ups = zip(*(part.chunk(2) for part in found), strict=True)
    assert torch.equal(torch.cat([*gates, *ups]), whole)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight"])
def test_the_vocabulary_is_padded_with_zeros(name: str, count: int) -> None:
    whole = numbered(VOCABULARY, HIDDEN)
    found = parts(name, whole, ranks(count))
    assert {len(part) for part in found} == {vocabulary_rows(VOCABULARY, count)}
    joined = torch.cat(found)
    assert len(joined) == padded_vocabulary(VOCABULARY, count)
    assert torch.equal(joined[:VOCABULARY], whole)
    assert not joined[VOCABULARY:].any()


def test_sizes_of_the_vocabulary() -> None:
    assert [padded_vocabulary(VOCABULARY, count) for count in (1, 2, 3, 4)] == [128, 128, 192, 128]
    assert vocabulary_rows(VOCABULARY, 1) == VOCABULARY
    assert vocabulary_rows(151936, 2) == 75968


@pytest.mark.parametrize("tool", Tool, ids=lambda tool: tool.value)
@pytest.mark.parametrize("count", [2, 4])
def test_scales_of_groups(tool: Tool, count: int) -> None:
    """Also where a rank has one group."""
    description = described(tool, **{f"{LAYER}.mlp.down_proj.weight": "W8A16"})
    groups, turned = INNER // GROUP, tool is Tool.GOLDEN_STICK
    whole = numbered(groups, HIDDEN) if turned else numbered(HIDDEN, groups)
    found = parts(f"{LAYER}.mlp.down_proj.weight_scale", whole, ranks(count, description))
    assert torch.equal(torch.cat(found, 0 if turned else 1), whole)


def test_int4_pairs_are_divided_along_their_outputs() -> None:
    modules = ("mlp.up_proj", "mlp.down_proj")
    types = {f"{LAYER}.{module}.weight": "W4A16" for module in modules}
    shards = ranks(2, described(Tool.GOLDEN_STICK, **types))
    up, down = numbered(HIDDEN, INNER // 2), numbered(INNER, HIDDEN // 2)
    assert torch.equal(torch.cat(parts(f"{LAYER}.mlp.up_proj.weight", up, shards), 1), up)
    assert torch.equal(torch.cat(parts(f"{LAYER}.mlp.down_proj.weight", down, shards)), down)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("model.embed_tokens.weight", numbered(128, HIDDEN)),
        ("lm_head.weight", numbered(128, HIDDEN)),
        ("lm_head.weight", numbered(128, HIDDEN).char()),
        ("lm_head.deq_scale", numbered(128)),
        ("lm_head.quant_bias", numbered(128).int()),
    ],
)
def test_rows_behind_the_vocabulary_are_left_out(name: str, rows: torch.Tensor) -> None:
    division = PaddedVocabulary(VOCABULARY)
    shape = (VOCABULARY, *rows.shape[1:])
    assert division.whole_shapes(name, [shape]) == [tuple(rows.shape), shape]
    assert torch.equal(division.part(name, rows), rows[:VOCABULARY])


@pytest.mark.parametrize("part", ["weight", "index", "input_offset"])
def test_what_has_no_rows_of_the_vocabulary_is_whole(part: str) -> None:
    whole = torch.arange(4 * VOCABULARY).char()
    assert PaddedVocabulary(VOCABULARY).part(f"lm_head.{part}", whole) is whole


def test_a_compressed_head_is_loaded(tmp_path: Path) -> None:
    """Its stream is longer than the vocabulary."""
    codes = np.arange(VOCABULARY * HIDDEN).reshape(VOCABULARY, HIDDEN).astype(np.int8)
    made = sparse_codec.encode(codes)
    tensors = {
        "lm_head.weight": torch.from_numpy(made.stream),
        "lm_head.index": torch.from_numpy(made.index),
        "lm_head.deq_scale": numbered(128),
        "lm_head.quant_bias": numbered(128).int(),
        "lm_head.input_scale": torch.ones(1),
        "lm_head.input_offset": torch.zeros(1).char(),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    source = SafetensorsSource(tmp_path, torch.float16, shards=PaddedVocabulary(VOCABULARY))
    scheme = W8A8SC("lm_head", (made.stream.size, made.index.size), encoded=False, bias=False)
    found = scheme.parameters(source, Projections(("lm_head",), HIDDEN, (VOCABULARY,)))
    source.finish()
    assert np.array_equal(to_torch(found.weights[0]).numpy(), made.stream)
    assert found.scales[0].shape == (VOCABULARY,)


def test_column_parts_stay_mapped_and_count_as_what_they_are(tmp_path: Path) -> None:
    tensors = {
        f"{LAYER}.mlp.up_proj.weight": numbered(INNER, HIDDEN),
        f"{LAYER}.mlp.down_proj.weight": numbered(HIDDEN, INNER),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    source = SafetensorsSource(tmp_path, torch.float32, shards=ranks(2)[1])
    up = to_torch(source.take(f"{LAYER}.mlp.up_proj.weight", (INNER // 2, HIDDEN)))
    down = to_torch(source.take(f"{LAYER}.mlp.down_proj.weight", (HIDDEN, INNER // 2)))
    source.finish()
    assert torch.equal(up, tensors[f"{LAYER}.mlp.up_proj.weight"][INNER // 2 :])
    assert torch.equal(down, tensors[f"{LAYER}.mlp.down_proj.weight"][:, INNER // 2 :])
    assert source.num_bytes == 2 * (INNER // 2) * HIDDEN * 4
    mapped = [
        range(*(int(end, 16) for end in line.split()[0].split("-")))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if str(tmp_path) in line
    ]
    assert any(up.data_ptr() in area for area in mapped)
    assert not any(down.data_ptr() in area for area in mapped)


def test_a_file_is_expected_in_whole_shapes(tmp_path: Path) -> None:
    name = f"{LAYER}.mlp.up_proj.weight"
    save_file({name: numbered(INNER + 2, HIDDEN)}, tmp_path / "model.safetensors")
    source = SafetensorsSource(tmp_path, torch.float32, shards=ranks(2)[0])
    source.take(name, (INNER // 2, HIDDEN))
    with pytest.raises(ValueError, match=r"expected shape \[256, 24\], found \[258, 24\]"):
        source.finish()
