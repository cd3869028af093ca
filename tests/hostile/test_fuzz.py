# SPDX-License-Identifier: Apache-2.0
"""Random mutations of a checkpoint never crash the loader: it reads what the safetensors library
reads, or refuses with a message that names the file."""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from tests.conftest import ROOT, RunPython
from tests.hostile import fuzz
from tests.hostile.files import INDEX, SINGLE
from vllm_mindspore.model_executor.model_loader.safetensors_header import open_regular, read_header

NUMPY_DTYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "U8": "u1", "BOOL": "?"}


@pytest.mark.parametrize(
    ("first", "count"), [(0, 1000), pytest.param(1000, 100_000, marks=pytest.mark.full)]
)
def test_mutations_are_read_right_or_refused(
    first: int, count: int, run_python: RunPython, tmp_path: Path
) -> None:
    """In a child process, so that a crash is a failure with the number of the mutation."""
    code = (
        f"import sys; sys.argv = ['fuzz', {str(tmp_path)!r}, '{first}', '{count}']\n"
        "import runpy; runpy.run_module('tests.hostile.fuzz', run_name='__main__')"
    )
    child = run_python(code, env={"PYTHONPATH": str(ROOT)}, timeout=3600, check=False)
    assert child.returncode == 0, f"mutation {(tmp_path / 'last').read_text()}\n{child.stderr}"
    report = json.loads(child.stdout.splitlines()[-1])
    assert report["failed"] == {}
    assert report["loaded"] + report["refused"] == count
    # Flips in the data and in the metadata leave a right file.
    assert report["loaded"] > count / 100
    assert report["refused"] > count / 2


def test_every_mutation_differs_from_the_right_file(tmp_path: Path) -> None:
    same = 0
    for number in range(200):
        fuzz.write(tmp_path, number)
        index = json.dumps({"weight_map": dict.fromkeys(fuzz.WEIGHTS, SINGLE)}).encode()
        same += (tmp_path / SINGLE).read_bytes() == fuzz.RIGHT and (
            (tmp_path / INDEX).read_bytes() == index
        )
    assert same < 10


tensors = st.dictionaries(
    st.text(string.printable.strip() + "äλ…", min_size=1, max_size=20).filter(
        lambda name: name != "__metadata__"
    ),
    st.tuples(st.sampled_from(sorted(NUMPY_DTYPES)), st.lists(st.integers(0, 4), max_size=4)),
    max_size=6,
)
# The library 0.8.0 writes broken JSON for metadata that is empty.
texts = st.dictionaries(st.text(), st.text(), min_size=1, max_size=3)


@settings(max_examples=150, deadline=None)
@given(contents=tensors, metadata=st.none() | texts)
def test_every_file_of_the_library_is_accepted(
    tmp_path_factory: pytest.TempPathFactory,
    contents: dict[str, tuple[str, list[int]]],
    metadata: dict[str, str] | None,
) -> None:
    """The check is strict, not stricter than the format: names, dtypes and shapes come back."""
    file = tmp_path_factory.getbasetemp() / "library.safetensors"
    arrays = {n: np.zeros(shape, NUMPY_DTYPES[dtype]) for n, (dtype, shape) in contents.items()}
    file.write_bytes(save(arrays, metadata))
    with open_regular(file) as stream:
        found = read_header(stream, file)
    assert {n: (info.dtype, list(info.shape)) for n, info in found.items()} == contents
