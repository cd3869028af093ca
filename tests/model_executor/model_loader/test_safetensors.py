# SPDX-License-Identifier: Apache-2.0
"""Loading is exact, shares memory, and names every problem of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vllm_mindspore.bridge import to_torch
from vllm_mindspore.model_executor.model_loader.safetensors import SafetensorsSource

WEIGHTS = {
    "a.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "b.weight": torch.arange(8, dtype=torch.float32).reshape(2, 4) - 3,
}


def _single(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    tensors = {name: tensor.to(dtype) for name, tensor in WEIGHTS.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def _sharded(folder: Path) -> Path:
    files = {"a.weight": "part-1.safetensors", "b.weight": "part-2.safetensors"}
    for name, file in files.items():
        save_file({name: WEIGHTS[name]}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    return folder


def _take_all(source: SafetensorsSource) -> dict[str, np.ndarray]:
    taken = {name: source.take(name, tensor.shape) for name, tensor in WEIGHTS.items()}
    source.finish()
    return {name: to_torch(parameter).float().numpy() for name, parameter in taken.items()}


@pytest.mark.parametrize("write", [_single, _sharded])
def test_values_survive(write: object, tmp_path: Path) -> None:
    source = SafetensorsSource(write(tmp_path), torch.float32)  # type: ignore[operator]
    for name, found in _take_all(source).items():
        np.testing.assert_array_equal(found, WEIGHTS[name].numpy())
    assert source.num_bytes == sum(tensor.nbytes for tensor in WEIGHTS.values())


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("wanted", [torch.bfloat16, torch.float16, torch.float32])
def test_every_dtype_converts(stored: torch.dtype, wanted: torch.dtype, tmp_path: Path) -> None:
    source = SafetensorsSource(_single(tmp_path, stored), wanted)
    for name, found in _take_all(source).items():
        np.testing.assert_array_equal(found, WEIGHTS[name].numpy())


def test_weights_stay_in_the_mapped_file(tmp_path: Path) -> None:
    big = torch.zeros(1 << 16, 8, dtype=torch.bfloat16)
    save_file({"big": big}, tmp_path / "model.safetensors")
    source = SafetensorsSource(tmp_path, torch.bfloat16)
    parameter = source.take("big", big.shape)
    source.finish()
    assert str(tmp_path / "model.safetensors") in _mapped_file(parameter.data_ptr())


def _mapped_file(address: int) -> str:
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= address < end:
            return line
    return ""


def test_merged_weights_are_concatenated(tmp_path: Path) -> None:
    source = SafetensorsSource(_single(tmp_path), torch.float32)
    merged = source.take_merged(list(WEIGHTS), [t.shape for t in WEIGHTS.values()])
    source.finish()
    np.testing.assert_array_equal(
        to_torch(merged).numpy(), torch.cat(list(WEIGHTS.values())).numpy()
    )


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    source = SafetensorsSource(_single(tmp_path), torch.float32)
    source.take("a.weight", (3, 5))
    source.take("c.weight", (7,))
    with pytest.raises(ValueError, match="does not fit the model") as error:
        source.finish()
    text = str(error.value)
    assert "tensor a.weight in model.safetensors: expected shape [3, 5], found [3, 4]" in text
    assert "missing tensor c.weight: expected shape [7]" in text
    assert "extra tensor b.weight in model.safetensors" in text
    assert str(tmp_path) in text


def test_problems_name_the_tool_that_quantized(tmp_path: Path) -> None:
    source = SafetensorsSource(_single(tmp_path), torch.float32, writer="ModelSlim")
    source.take("c.weight", (7,))
    with pytest.raises(ValueError, match=r"missing tensor c\.weight.*") as error:
        source.finish()
    assert "ModelSlim made this checkpoint: copy its folder again as a whole" in str(error.value)


def test_recomputed_buffers_may_be_present(tmp_path: Path) -> None:
    save_file({"x.inv_freq": torch.zeros(2)}, tmp_path / "model.safetensors")
    SafetensorsSource(tmp_path, torch.float32, unused=(".inv_freq",)).finish()


def test_integer_weights_are_refused(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2, dtype=torch.int8)}, tmp_path / "model.safetensors")
    source = SafetensorsSource(tmp_path, torch.float32)
    source.take("w", (2,))
    with pytest.raises(ValueError, match=r"tensor w in .+: expected dtype BF16/F16/F32, found I8"):
        source.finish()


def test_a_folder_without_weights_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no \*\.safetensors file; convert"):
        SafetensorsSource(tmp_path, torch.float32)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    file = _single(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a valid safetensors file"):
        SafetensorsSource(tmp_path, torch.float32)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "sub/x.safetensors", ""])
def test_an_index_cannot_leave_its_folder(name: str, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": name}}))
    with pytest.raises(ValueError, match="is not a plain file name"):
        SafetensorsSource(tmp_path, torch.float32)


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": []}', '{"weight_map": {}}', "{"])
def test_a_broken_index_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match=r"index\.json"):
        SafetensorsSource(tmp_path, torch.float32)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (_sharded(tmp_path) / "part-2.safetensors").unlink()
    with pytest.raises(ValueError, match=r"part-2.safetensors does not exist"):
        SafetensorsSource(tmp_path, torch.float32)


def test_an_index_entry_that_no_file_holds_is_named(tmp_path: Path) -> None:
    index = _sharded(tmp_path) / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"] | {"z": "part-1.safetensors"}
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ValueError, match=r"lists \['z'\]"):
        SafetensorsSource(tmp_path, torch.float32)


def test_a_tensor_in_two_files_is_an_error(tmp_path: Path) -> None:
    for file in ("x.safetensors", "y.safetensors"):
        save_file({"a.weight": WEIGHTS["a.weight"]}, tmp_path / file)
    with pytest.raises(ValueError, match=r"tensor a.weight is also in another file"):
        SafetensorsSource(tmp_path, torch.float32)
