# SPDX-License-Identifier: Apache-2.0
"""Finished parts that outlive the process that made them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vllm_mindspore.quantization.ptq.work_folder import WorkFolder

FINGERPRINT = {"source": {"x": [1, 2]}, "options": "abc"}


def test_parts_are_there_after_reopening(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path / "work", FINGERPRINT)
    assert not work.has("a")
    work.add("a", {"t": torch.arange(3)}, {"types": {"t": "FLOAT"}})
    work.close()
    again = WorkFolder(tmp_path / "work", FINGERPRINT)
    assert again.has("a")
    assert again.content("a") == {"types": {"t": "FLOAT"}}
    (entry,) = again.entries("a")
    assert (entry.name, entry.shape) == ("t", (3,))
    assert torch.equal(entry.read(), torch.arange(3))


def test_tensors_without_their_content_are_no_part(tmp_path: Path) -> None:
    """As after a kill between the two files."""
    work = WorkFolder(tmp_path / "work", FINGERPRINT)
    work.add("a", {"t": torch.arange(3)}, {})
    (tmp_path / "work" / "a.json").unlink()
    assert not work.has("a")


def test_work_on_something_else_is_refused(tmp_path: Path) -> None:
    WorkFolder(tmp_path / "work", FINGERPRINT).close()
    other = {"source": {"x": [1, 3]}, "options": "abd"}
    with pytest.raises(ValueError, match=r"unfinished work with other options, source; finish"):
        WorkFolder(tmp_path / "work", other)


def test_two_processes_do_not_work_on_one_folder(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path / "work", FINGERPRINT)
    with pytest.raises(ValueError, match="another process is at work"):
        WorkFolder(tmp_path / "work", FINGERPRINT)
    work.close()
    WorkFolder(tmp_path / "work", FINGERPRINT).close()
