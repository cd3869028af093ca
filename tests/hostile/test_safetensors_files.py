# SPDX-License-Identifier: Apache-2.0
"""Every way in which one safetensors file can lie is an error that names file, tensor and both
values, in the front end's check and in the loader alike, whatever the file's size claims."""

from __future__ import annotations

import io
import json
import pickle
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from tests.hostile.files import SHAPES, SINGLE, entry, header, right_file, safetensors
from vllm_mindspore.model_executor.model_loader.checkpoint_files import check_folder
from vllm_mindspore.model_executor.model_loader.safetensors import SafetensorsSource

Reader = Callable[[Path], object]


def _load(folder: Path) -> object:
    return SafetensorsSource(folder, torch.float32)


each_reader = pytest.mark.parametrize("read", [check_folder, _load], ids=["front-end", "loader"])


def _torch_pickle(*, zipped: bool) -> bytes:
    stream = io.BytesIO()
    torch.save({"w": torch.zeros(9)}, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


GOOD = right_file()
DUPLICATE = (
    json.dumps(header())[:-1].encode() + b', "a.weight": ' + json.dumps(entry(0, (3, 4))).encode()
)
OFFSETS = {"gap": [52, 84], "overlap": [44, 76], "far": [1 << 62, (1 << 62) + 32]}

# What is written, and what the message must say beyond the file's name.
FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "expected at least 8 bytes, found 0"),
    "seven-bytes": (GOOD[:7], "expected at least 8 bytes, found 7"),
    "only-a-length": (GOOD[:8], r"expected a header of \d+ bytes, found a file with 0 bytes"),
    "half-a-header": (GOOD[:60], r"expected a header of \d+ bytes, found a file with 52 bytes"),
    "truncated-data": (
        GOOD[:-1],
        rf"tensor b.weight: expected data up to byte {len(GOOD)}, found a file of {len(GOOD) - 1}",
    ),
    "bytes-too-many": (
        GOOD + b"\0",
        rf"expected the file to end at byte {len(GOOD)}, after tensor b.weight; found",
    ),
    "length-2^63": (
        safetensors(header(), length=1 << 63),
        "expected a header of at most 100000000 bytes, found 9223372036854775808",
    ),
    "length-2^64-1": (safetensors(header(), length=(1 << 64) - 1), "found 18446744073709551615"),
    "length-0": (safetensors(header(), length=0), "header: expected a JSON object"),
    "length-one-less": (
        safetensors(header(), length=len(json.dumps(header())) - 1),
        "header: expected a JSON object",
    ),
    "not-json": (safetensors(b"x" * 40), "header: expected a JSON object in UTF-8, found"),
    "not-utf8": (safetensors(b'{"\xff\xfe": 1}'), "header: expected a JSON object in UTF-8"),
    "list": (safetensors([]), "header: expected a JSON object, found a list"),
    "nested-lists": (safetensors(b"[" * 100_000), "nested too deep"),
    "nested-objects": (safetensors(b'{"a":' * 100_000), "nested too deep"),
    "nan-constant": (safetensors(b'{"a": NaN}'), "found: NaN, which is not JSON"),
    "long-number": (safetensors(b'{"a": ' + b"9" * 5000 + b"}"), "header: expected a JSON object"),
    "duplicate-tensor": (safetensors(DUPLICATE + b"}"), "the key 'a.weight' 2 times"),
    "duplicate-field": (
        safetensors(b'{"a": {"dtype": "F32", "dtype": "F32"}}'),
        "the key 'dtype' 2 times",
    ),
    "metadata-of-numbers": (
        safetensors({"__metadata__": {"a": 1}, **header()}),
        "expected __metadata__ to be an object of strings",
    ),
    "metadata-half-a-surrogate": (
        safetensors(b'{"__metadata__": {"a": "\\ud800"}}'),
        "expected __metadata__ to be an object of strings",
    ),
    "metadata-is-null": (safetensors({"__metadata__": None, **header()}), "object of strings"),
    "entry-is-a-list": (safetensors({"a": []}), "tensor a: expected dtype, shape, data_offsets"),
    "entry-lacks-shape": (
        safetensors({"a": {"dtype": "F32", "data_offsets": [0, 0]}}),
        r"tensor a: expected dtype, shape, data_offsets, found \['data_offsets', 'dtype'\]",
    ),
    "entry-says-more": (safetensors(header(a={"strides": [1, 3]})), "tensor a.weight: expected"),
    "empty-name": (safetensors({"": entry(0, (20,))}), "expected printable names"),
    "name-with-escapes": (safetensors({"\x1b[2Ja\nb": entry(0, (20,))}), r"\\x1b\[2Ja\\nb"),
    "name-too-long": (safetensors({"n" * 2000: entry(0, (20,))}), "of 1 to 1024 characters"),
    "name-half-a-surrogate": (safetensors(b'{"\\ud800": {}}'), "expected printable names"),
    "unknown-dtype": (
        safetensors(header(b={"dtype": "Q4"})),
        "tensor b.weight: expected a dtype of the format, found 'Q4'",
    ),
    "dtype-is-a-list": (safetensors(header(b={"dtype": []})), r"format, found \[\]"),
    "wider-dtype": (
        safetensors(header(b={"dtype": "F64"})),
        r"tensor b.weight: expected 64 bytes for F64 \[2, 4\], found 32",
    ),
    "half-a-byte": (
        safetensors({"a": entry(0, (1,), dtype="F4", data_offsets=[0, 1])}, bytes(1)),
        "tensor a: expected 0 bytes for F4",
    ),
    "larger-shape": (
        safetensors(header(a={"shape": [4, 4]})),
        r"tensor a.weight: expected 64 bytes for F32 \[4, 4\], found 48",
    ),
    "negative-size": (safetensors(header(a={"shape": [-3, -4]})), r"found \[-3, -4\]"),
    "float-size": (safetensors(header(a={"shape": [3.0, 4]})), r"found \[3.0, 4\]"),
    "boolean-size": (safetensors(header(a={"shape": [True, 12]})), r"found \[True, 12\]"),
    "string-shape": (safetensors(header(a={"shape": "34"})), "found '34'"),
    "huge-shape": (safetensors(header(a={"shape": [1 << 62] * 8})), "for F32 .46116860"),
    "wrapping-shape": (  # 2^64 + 12 elements are 12 in 64 bits
        safetensors(header(a={"shape": [4, (1 << 62) + 3]})),
        "tensor a.weight: expected 73786976294838206512 bytes",
    ),
    "size-of-65-bits": (
        safetensors(header(a={"shape": [1 << 63]})),
        "sizes from 0 to 9223372036854775807, found .9223372036854775808.",
    ),
    "sizes-of-4000-digits": (  # their product has more digits than Python writes down
        safetensors(header(a={"shape": [10**4000 - 1] * 3})),
        "tensor a.weight: expected a shape of at most 64 sizes from 0 to 9",
    ),
    "offsets-of-4000-digits": (
        safetensors(header(a={"data_offsets": [0, 10**4000 - 1]})),
        r"tensor a.weight: expected data_offsets \[begin, end\] from 0 to 9",
    ),
    "64-huge-sizes": (safetensors(header(a={"shape": [1 << 62] * 64})), "for F32 .46116860"),
    "many-dimensions": (safetensors(header(a={"shape": [1] * 65})), "at most 64 sizes"),
    "gap": (
        safetensors(header(b={"data_offsets": OFFSETS["gap"]}), bytes(84)),
        "tensor b.weight: expected to begin at byte .+, right after tensor a.weight; found a gap "
        "of 4 bytes",
    ),
    "overlap": (
        safetensors(header(b={"data_offsets": OFFSETS["overlap"]}), bytes(76)),
        "tensor b.weight: expected to begin at byte .+; found an overlap of 4 bytes",
    ),
    "same-bytes-twice": (
        safetensors({"a": entry(0, (4,)), "b": entry(0, (4,))}, bytes(16)),
        "tensor b: expected to begin at byte .+, right after tensor a; found an overlap of 16",
    ),
    "gap-at-the-start": (
        safetensors({"a": entry(8, (4,))}, bytes(24)),
        "tensor a: expected to begin at byte .+, right after the header; found a gap of 8",
    ),
    "far-beyond-the-end": (
        safetensors(header(b={"data_offsets": OFFSETS["far"]})),
        "tensor b.weight: expected data up to byte 46116860",
    ),
    "backwards": (
        safetensors(header(b={"data_offsets": [80, 48]})),
        r"tensor b.weight: expected 32 bytes for F32 \[2, 4\], found -32",
    ),
    "negative-offset": (safetensors(header(a={"data_offsets": [-8, 40]})), r"found \[-8, 40\]"),
    "three-offsets": (
        safetensors(header(a={"data_offsets": [0, 1, 2]})),
        r"\[begin, end\] from 0 to \d+, found \[0, 1, 2\]",
    ),
    "torch-pickle": (_torch_pickle(zipped=True), "a torch pickle, which can run code"),
    "old-torch-pickle": (_torch_pickle(zipped=False), "a Python pickle, which can run code"),
    "python-pickle": (pickle.dumps(list(range(99))), "a Python pickle, which can run code"),
    "git-lfs-pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "git lfs pull",
    ),
    "web-page": (b"<!DOCTYPE html><html></html>", "a web page or XML"),
    "gguf": (b"GGUF\x03\0\0\0" + bytes(99), "a GGUF file"),
}


@each_reader
@pytest.mark.parametrize("case", FILES)
def test_is_refused(case: str, read: Reader, tmp_path: Path) -> None:
    content, expected = FILES[case]
    (tmp_path / SINGLE).write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=expected) as error:
            read(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    message = str(error.value)
    assert message.startswith(f"{tmp_path / SINGLE} is not a valid safetensors file: ")
    assert "\n" not in message
    assert len(message) < 1000
    # A lying size is not followed by an allocation; a nested header costs what its text does.
    assert peak < 4_000_000 + 20 * len(content)


def test_a_huge_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """A sparse file of 101 MB: its header has the claimed length, and nobody reads it."""
    with (tmp_path / SINGLE).open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(101_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="at most 100000000 bytes, found 100000001"):
            check_folder(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_right_file_is_loaded(tmp_path: Path) -> None:
    """Guards the cases above: what they change is what makes them wrong."""
    (tmp_path / SINGLE).write_bytes(GOOD)
    check_folder(tmp_path)
    source = SafetensorsSource(tmp_path, torch.float32)
    for name, shape in SHAPES.items():
        assert source.take(name, shape).shape == shape
    source.finish()
    assert load(GOOD)["b.weight"].flatten().tolist() == list(range(12, 20))


def test_tensors_of_no_elements_are_part_of_the_format(tmp_path: Path) -> None:
    head = {"none": entry(0, (0, 4)), **header()}
    (tmp_path / SINGLE).write_bytes(safetensors(head))
    source = SafetensorsSource(tmp_path, torch.float32)
    assert tuple(source.take("none", (0, 4)).shape) == (0, 4)


def test_a_model_does_not_take_one_for_a_weight(tmp_path: Path) -> None:
    head = {"w": entry(0, (0, 4))}
    (tmp_path / SINGLE).write_bytes(safetensors(head, b""))
    source = SafetensorsSource(tmp_path, torch.float32)
    source.take("w", (3, 4))
    with pytest.raises(ValueError, match=r"tensor w in .+: expected shape \[3, 4\], found \[0, 4"):
        source.finish()


@pytest.mark.parametrize("pad", range(4))
def test_unaligned_data_is_read_right(pad: int, tmp_path: Path) -> None:
    """Old writers do not align the data; kernels read whole elements."""
    text = json.dumps(header()).encode()
    text += b" " * ((-len(text) - 8) % 8 + pad)
    (tmp_path / SINGLE).write_bytes(safetensors(text, GOOD[-80:]))
    source = SafetensorsSource(tmp_path, torch.float32)
    taken = {name: source.take(name, shape) for name, shape in SHAPES.items()}
    source.finish()
    assert [p.data_ptr() % 4 for p in taken.values()] == [0, 0]
    assert taken["b.weight"].asnumpy().flatten().tolist() == list(range(12, 20))


@pytest.mark.parametrize("dtype", ["I8", "U8", "BOOL", "F8_E4M3", "I64", "F64", "C64", "F4"])
def test_other_dtypes_are_valid_files_but_no_weights(dtype: str, tmp_path: Path) -> None:
    size = {"I64": 64, "F64": 64, "C64": 64, "F4": 4}.get(dtype, 8)
    head = {"w": {"dtype": dtype, "shape": [2, 4], "data_offsets": [0, size]}}
    (tmp_path / SINGLE).write_bytes(safetensors(head, bytes(size)))
    check_folder(tmp_path)
    source = SafetensorsSource(tmp_path, torch.float32)
    source.take("w", (2, 4))
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is checked below
        source.finish()
    assert re.search(
        rf"tensor w in {SINGLE}: expected dtype BF16/F16/F32, found {dtype}\n", str(error.value)
    )
