# SPDX-License-Identifier: Apache-2.0
"""Broken model folders as a user meets them: through vLLM's configuration, LLM() and `serve`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from vllm.engine.arg_utils import EngineArgs

from tests.conftest import ANY_PORT, ENVIRONMENT, ROOT, RunPython


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def configure(folder: Path, **options: Any) -> None:
    EngineArgs(model=str(folder), **options).create_engine_config()


def change_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refusal(folder: Path) -> str:
    """The message with which the front end refuses a folder, whatever the exception's type."""
    with pytest.raises(Exception) as error:  # noqa: PT011 - transformers has many
        configure(folder)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("generation_config.json", b"", "expected a JSON object in UTF-8"),
        ("generation_config.json", b"[]", "expected a JSON object, found a list"),
        ("generation_config.json", b"[" * 100_000, "nested too deep"),
        ("tokenizer_config.json", b"{", "expected a JSON object in UTF-8"),
        ("tokenizer_config.json", b"\xff", "expected a JSON object in UTF-8"),
        ("tokenizer_config.json", b'{"a": 1, "a": 2}', "the key 'a' 2 times"),
        ("special_tokens_map.json", b"7", "expected a JSON object, found a int"),
        ("tokenizer.json", b"", "expected a tokenizer, found: EOF"),
        ("tokenizer.json", b"{}", "expected a tokenizer, found: "),
        ("tokenizer.json", b"[" * 100_000, "expected a tokenizer, found: "),
        ("tokenizer.json", b"\xff\xfe", "expected a tokenizer, found: "),
        (
            "model.safetensors",
            b"\x02" + bytes(7) + b"{}x",
            "is not a valid safetensors file: expected the file to end at byte 10",
        ),
        ("model.safetensors.index.json", b"{}", "weight_map must be"),
    ],
)
def test_a_broken_file_is_named(name: str, text: bytes, expected: str, folder: Path) -> None:
    (folder / name).write_bytes(text)
    message = refusal(folder)
    assert str(folder / name) in message
    assert expected in message


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"PK\x03\x04" + b"\x08" * 99,
        b"\x02" + bytes(7) + b"xx",
        b"\xff" + bytes(7) + b"{}",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    ],
)
def test_weights_without_a_header_are_named(text: bytes, tied: bool, folder: Path) -> None:
    """With tied embeddings vLLM reads the header before it asks the platform."""
    change_config(folder, tie_word_embeddings=tied)
    (folder / "model.safetensors").write_bytes(text)
    assert f"{folder / 'model.safetensors'} is not a valid safetensors file" in refusal(folder)


def test_a_broken_vocabulary_is_named(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["merges"] = [["no", "such"]]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert f"{folder / 'tokenizer.json'}: expected a tokenizer" in refusal(folder)


def test_a_missing_tokenizer_says_what_to_do(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert f"{folder} has no tokenizer" in refusal(folder)
    configure(folder, skip_tokenizer_init=True)


def test_dummy_weights_need_no_files(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")
    configure(folder, load_format="dummy")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "expected a JSON object in UTF-8"),
        (b"{", "expected a JSON object in UTF-8"),
        (b"\xff\xfe{}", "expected a JSON object in UTF-8"),
        (b"<html>", "expected a JSON object in UTF-8"),
        (b"[]", "expected a JSON object, found a list"),
        (b'"x"', "expected a JSON object, found a str"),
        (b"7", "expected a JSON object, found a int"),
        (b"null", "expected a JSON object, found a NoneType"),
        (b"[" * 100_000, "nested too deep"),
    ],
)
def test_a_config_that_is_no_object_is_named(text: bytes, expected: str, folder: Path) -> None:
    (folder / "config.json").write_bytes(text)
    message = refusal(folder)
    assert str(folder / "config.json") in message
    assert expected in message


def test_an_empty_config_is_refused(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"{}")
    refusal(folder)


@pytest.mark.parametrize("value", [10**9, 10_001, -1, 0, "4", 4.5, None, [], True])
def test_a_number_of_layers_that_no_model_has_is_refused(value: Any, folder: Path) -> None:
    """Before anything counts them: 10**9 would fill the memory."""
    change_config(folder, num_hidden_layers=value)
    message = refusal(folder)
    assert f"{folder / 'config.json'}: num_hidden_layers=" in message
    assert "10000" in message or "must be a positive integer" in message


@pytest.mark.parametrize("value", [-1, 0])
@pytest.mark.parametrize(
    "field",
    [
        *("hidden_size", "intermediate_size", "vocab_size", "head_dim"),
        *("num_attention_heads", "num_key_value_heads"),
    ],
)
def test_a_size_that_is_none_is_refused(field: str, value: int, folder: Path) -> None:
    change_config(folder, **{field: value})
    message = refusal(folder)
    assert f"config.json: {field}={value} must be a positive integer" in message


@pytest.mark.parametrize("value", ["64", 1.5, [], {}, True])
@pytest.mark.parametrize("field", ["hidden_size", "vocab_size", "head_dim"])
def test_a_size_of_another_type_is_refused(field: str, value: Any, folder: Path) -> None:
    change_config(folder, **{field: value})
    assert f"config.json: {field}={value!r} must be a positive integer" in refusal(folder)


def test_serve_ends_with_the_reason_before_an_engine_starts(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    child = subprocess.run(
        [sys.executable, "-m", "vllm_mindspore.cli.main", "serve", str(folder), *ANY_PORT],
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert child.returncode == 1
    last_lines = "\n".join(child.stderr.splitlines()[-5:])
    assert f"{weights} is not a valid safetensors file: tensor " in last_lines
    assert "EngineCore" not in child.stdout + child.stderr


LOAD = """
from vllm import LLM
LLM({folder!r}, max_model_len=64)
"""


def test_nan_weights_end_the_engine_with_their_name(folder: Path, run_python: RunPython) -> None:
    name = "model.layers.2.mlp.up_proj.weight"
    weights = load_file(folder / "model.safetensors")
    weights[name][5, 7] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    output = failing_llm(folder, run_python)
    assert f"checkpoint {folder} has weights that are not finite" in output
    assert f"tensor {name} in model.safetensors: expected finite numbers, found 1 NaN" in output


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"vocab_size": 10**9},
            "tensor model.embed_tokens.weight in model.safetensors: expected shape "
            "[1000000000, 256], found [2048, 256]",
        ),
        pytest.param(
            {"num_hidden_layers": 10_000, "layer_types": None},
            "missing tensor model.layers.4.input_layernorm.weight: expected shape [256]",
            marks=pytest.mark.full,
        ),
        pytest.param(
            {"intermediate_size": 1 << 40},
            "tensor model.layers.0.mlp.gate_proj.weight in model.safetensors: expected shape "
            "[1099511627776, 256], found [768, 256]",
            marks=pytest.mark.full,
        ),
    ],
)
def test_sizes_of_another_model_end_the_engine_with_both(
    changes: dict[str, Any], expected: str, folder: Path, run_python: RunPython
) -> None:
    change_config(folder, **changes)
    output = failing_llm(folder, run_python)
    assert f"checkpoint {folder} does not fit the model" in output
    assert expected in output


def failing_llm(folder: Path, run_python: RunPython) -> str:
    """What `LLM(folder)` prints, in a script of its own; it must fail."""
    child = run_python(
        LOAD.format(folder=str(folder)), env={"PYTHONPATH": str(ROOT)}, timeout=240, check=False
    )
    assert child.returncode == 1, child.stdout + child.stderr
    return child.stdout + child.stderr
