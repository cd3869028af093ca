# SPDX-License-Identifier: Apache-2.0
"""A checkpoint is a local folder, or a hub name found in the local cache (tests are offline)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from vllm.config import LoadConfig

from vllm_mindspore.model_executor.model_loader.folder import checkpoint_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def model(name: Path | str, revision: str | None = None) -> Any:
    """What is read of vLLM's ModelConfig."""
    return SimpleNamespace(model=str(name), revision=revision)


def hub_cache(folder: Path, revision: str) -> Path:
    """A cache as huggingface_hub lays it out, with one downloaded model; returns its snapshot."""
    repository = folder / "models--someone--tiny"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"")
    (repository / "refs").mkdir()
    (repository / "refs" / revision).write_text(COMMIT)
    return snapshot


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert checkpoint_folder(model(tmp_path), LoadConfig()) == tmp_path


def test_a_file_in_place_of_a_folder_says_what_to_give(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="is a file; give the folder that holds"):
        checkpoint_folder(model(file), LoadConfig())


@pytest.mark.parametrize(("revision", "stored"), [(None, "main"), ("v2", "v2")])
def test_a_hub_name_is_found_in_the_download_folder(
    revision: str | None, stored: str, tmp_path: Path
) -> None:
    snapshot = hub_cache(tmp_path, stored)
    found = checkpoint_folder(
        model("someone/tiny", revision), LoadConfig(download_dir=str(tmp_path))
    )
    assert found == snapshot


def test_another_revision_is_not_what_was_asked(tmp_path: Path) -> None:
    hub_cache(tmp_path, "main")
    with pytest.raises(LocalEntryNotFoundError):
        checkpoint_folder(model("someone/tiny", "v2"), LoadConfig(download_dir=str(tmp_path)))
