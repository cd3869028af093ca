# SPDX-License-Identifier: Apache-2.0
"""Descriptions of compressed folders: blocks of ranks, coding, sizes, and what contradicts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vllm_mindspore.quantization import sparse_codec
from vllm_mindspore.quantization.description import FLOAT, SPARSE, STATIC
from vllm_mindspore.quantization.sparse_description import (
    Layout,
    SparseDescription,
    fused_name,
    is_compressed,
    of_parts,
    parse,
)

FILE = Path("folder/quantization_description.json")
CODEC = {"name": sparse_codec.NAME, "version": sparse_codec.VERSION}
Q, K, V, QKV, OUT = (
    f"model.layers.0.self_attn.{name}_proj" for name in ("q", "k", "v", "qkv", "o")
)


def block(**changes: Any) -> dict[str, Any]:
    """Of one rank; None takes an entry out."""
    entries = {
        f"{QKV}.weight": "W8A8S",
        f"{QKV}.weight.shape": [128],
        f"{QKV}.index.shape": [8],
        f"{QKV}.deq_scale": "W8A8S",
        "model.norm.weight": "FLOAT",
        "lm_head.weight": "W8A8",
    }
    entries |= {name.replace("QKV", QKV): value for name, value in changes.items()}
    return {name: value for name, value in entries.items() if value is not None}


def described(count: int = 2, **others: Any) -> SparseDescription:
    ranks = {f"rank_{index}": block() for index in range(count)}
    return parse(FILE, {"codec": CODEC, **ranks, **others})


def test_blocks() -> None:
    found = described()
    assert found.layout is Layout.FOLDERS
    assert found.own_codec
    assert not found.encoded
    assert found.blocks[1].sizes == {QKV: (128, 8)}
    assert found.fused_type([Q, K, V], 1) == (QKV, SPARSE)
    assert found.fused_type(["lm_head"]) == ("lm_head", STATIC)
    assert found.fused_type(["model.norm"]) == ("model.norm", FLOAT)
    assert found.type_of(K) == SPARSE
    assert found.names[0] == "golden-stick"
    assert "ascend" in found.names


def test_npu_coding_and_device() -> None:
    found = parse(FILE, {"device_type": "310P", "rank_0": block()})
    assert not found.own_codec
    assert found.encoded


def test_flat_layout() -> None:
    types = {f"{QKV}.weight": "W8A8SC", f"{QKV}.index": "W8A8SC", "model.norm.weight": "FLOAT"}
    found = parse(FILE, {"model_quant_type": "W8A8SC", "version": "1.0.0", **types})
    assert found.layout is Layout.FLAT
    assert not found.own_codec
    assert found.blocks[0].type_of(QKV) == SPARSE
    assert parse(FILE, {"codec": CODEC, **types}).own_codec
    stated = {f"{QKV}.weight.shape": [128], f"{QKV}.index.shape": [8]}
    assert parse(FILE, {**types, **stated}).blocks[0].sizes == {QKV: (128, 8)}


def test_fused_names() -> None:
    assert fused_name([Q, K, V]) == QKV
    assert fused_name(["l.mlp.up_proj"]) == "l.mlp.gate_up_proj"
    assert fused_name(["l.mlp.down_proj"]) == "l.mlp.down_proj"
    assert fused_name(["lm_head"]) == "lm_head"


@pytest.mark.parametrize(
    ("content", "compressed"),
    [
        ({"rank_0": {}}, True),
        ({"codec": CODEC}, True),
        ({"a.weight": "W8A8SC"}, True),
        ({"model_quant_type": "W8A8SC"}, True),
        ({"a.weight": "W8A8S"}, False),
        ({"rank": "W8A8", "rank_01": "x"}, False),
        ({}, False),
    ],
)
def test_which_are(content: dict[str, Any], compressed: bool) -> None:
    assert is_compressed(content) is compressed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"codec": {"name": "tile-bitmap", "version": 2}, "rank_0": block()},
            "coding this release",
        ),
        ({"codec": "zip", "rank_0": block()}, "coding this release reads, found 'zip'"),
        ({"codec": None, "rank_0": block()}, "coding this release reads, found None"),
        ({"codec": CODEC | {"version": True}, "rank_0": block()}, "'version': True"),
        ({"codec": CODEC | {"version": 1.0}, "rank_0": block()}, r"'version': 1\.0"),
        ({"device_type": 310, "rank_0": block()}, "device_type: expected a name, found 310"),
        ({"rank_1": block()}, "expected the blocks rank_0 to rank_0, found rank_1"),
        ({"rank_0": block(), "rank_2": block()}, "rank_0 to rank_1, found rank_0, rank_2"),
        ({"rank_0": block(), "x.weight": "W8A8S"}, "rank_0 to rank_0 alone, found 'x.weight'"),
        ({"rank_0": ["W8A8S"]}, "rank_0: expected an object, found list"),
        ({"rank_0": block(x=8)}, "'x': expected the name of a type, found 8"),
        ({"rank_0": block(**{"x.weight": "W8A16"})}, "type 'W8A16'; supported here: W8A8S, W8A8"),
        ({"rank_0": block(**{"QKV.weight.shape": [1, 2]})}, r"expected \[bytes\], found \[1, 2\]"),
        ({"rank_0": block(**{"QKV.weight.shape": [-1]})}, r"expected \[bytes\], found \[-1\]"),
        ({"rank_0": block(**{"QKV.weight.shape": [True]})}, r"expected \[bytes\], found \[True\]"),
        ({"rank_0": block(**{"QKV.weight.shape": None})}, "weight.shape is missing"),
        ({"rank_0": block(**{"QKV.index.shape": None})}, "index.shape is missing"),
        ({"rank_0": block(**{"lm_head.index.shape": [8]})}, "is of no compressed layer"),
        ({"rank_0": block(**{"QKV.deq_scale": "FLOAT"})}, "several types, W8A8S and FLOAT"),
        ({"x.weight": "W8A8S", "y.weight": "W8A8SC"}, "supported here: W8A8SC, W8A8, FLOAT"),
        ({"x.weight": "W8A8SC", "x.weight.shape": [64]}, "but x.index.shape is missing"),
        ({"x.weight": "W8A8SC", "x.index.shape": [8]}, "but x.weight.shape is missing"),
    ],
)
def test_what_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        parse(FILE, content)
    assert str(FILE) in str(refusal.value)


@pytest.mark.parametrize(
    "name", ["a\nb.weight", "\x1b[2J.index.shape", "\ud800.weight", "n" * 1025 + ".weight"]
)
@pytest.mark.parametrize("kind", ["FLOAT", "W8A8SC"])
def test_names_that_no_message_may_have(name: str, kind: str) -> None:
    """Also where they belong to no layer."""
    for content in ({name: kind}, {name: [8]}, {"rank_0": block(**{name: kind})}):
        with pytest.raises(ValueError, match="expected printable names of at most 1024") as refusal:
            parse(FILE, {"codec": CODEC, **content})
        message = str(refusal.value)
        assert message.isprintable()
        assert len(message) < 250


def test_biases_may_be_float() -> None:
    parse(FILE, {"rank_0": block(**{"QKV.bias": "FLOAT"})})


def test_names_of_another_model() -> None:
    with pytest.raises(ValueError, match=r"does not say what x.gate_up_proj of rank 0 is"):
        described().fused_type(["x.gate_proj"])
    found = parse(FILE, {"rank_0": {"a.q_proj.weight": "W8A8"}})
    with pytest.raises(ValueError, match=r"but has a.q_proj: compressed folders hold fused layers"):
        found.fused_type(["a.q_proj"])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({}, {"lm_head.weight": "FLOAT"}, "lm_head.weight is FLOAT, of rank_0 it is W8A8: exp"),
        ({"QKV.bias": "W8A8S"}, {}, f"{QKV}.bias is missing, of rank_0 it is W8A8S: expected"),
        ({}, {"QKV.bias": "FLOAT"}, f"{QKV}.bias is FLOAT, of rank_0 it is missing"),
    ],
)
def test_blocks_that_differ(first: dict[str, str], second: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=f"rank_1: {message}") as refusal:
        parse(FILE, {"rank_0": block(**first), "rank_1": block(**second)})
    assert str(FILE) in str(refusal.value)


def test_blocks_may_differ_in_sizes_and_in_what_one_rank_adds() -> None:
    first = {f"{OUT}.weight": "W8A8", f"{OUT}.quant_bias": "W8A8", f"{OUT}.bias": "FLOAT"}
    second = {f"{OUT}.weight": "W8A8", "QKV.weight.shape": [192]}
    found = parse(FILE, {"rank_0": block(**first), "rank_1": block(**second)})
    assert [each.sizes[QKV] for each in found.blocks] == [(128, 8), (192, 8)]


def test_parts_with_different_types() -> None:
    parts = [parse(FILE, {"rank_0": block(**{"lm_head.weight": kind})}) for kind in ("W8A8", FLOAT)]
    with pytest.raises(ValueError, match="lm_head of rank 0: W8A8, lm_head of rank 1: FLOAT"):
        of_parts(parts).type_of("lm_head")


def test_dtype() -> None:
    described().check("float16")
    with pytest.raises(ValueError, match=r"in float16 alone.*found bfloat16. Use --dtype float16"):
        described().check("bfloat16")


def test_number_of_ranks() -> None:
    described().check_ranks(2)
    with pytest.raises(ValueError, match=r"made for 2 ranks.*tensor_parallel_size is 4") as refusal:
        described().check_ranks(4)
    advice = "vllm-mindspore convert folder --output DIR --tensor-parallel-size 4"
    assert advice in str(refusal.value)


def test_number_of_ranks_in_the_coding_of_an_npu() -> None:
    """`convert` reads ours alone."""
    found = parse(FILE, {"rank_0": block()})
    with pytest.raises(ValueError, match=r"files for 2 ranks of the uncompressed W8A8S") as refusal:
        found.check_ranks(2)
    assert "with the vendor's tool" in str(refusal.value)
    assert "vllm-mindspore convert" not in str(refusal.value)
