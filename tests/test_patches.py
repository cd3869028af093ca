# SPDX-License-Identifier: Apache-2.0
"""Every patch record works, is described, and is still needed."""

from __future__ import annotations

import pytest
import torch

from vllm_mindspore import patches
from vllm_mindspore.patches import Patch

each_patch = pytest.mark.parametrize("patch", patches.PATCHES, ids=lambda item: item.target)


@pytest.fixture
def unpatched(monkeypatch: pytest.MonkeyPatch, patch: Patch) -> Patch:
    """The record with the original in place; afterwards everything is as before."""
    module, name = patch.target.split(":")
    monkeypatch.setattr(f"{module}.{name}", patch.original())
    return patch


@each_patch
def test_original_still_misbehaves(unpatched: Patch) -> None:
    if torch.accelerator.is_available():
        pytest.skip("the originals fail only where torch has no accelerator")
    assert unpatched.needed(), f"retire it: {unpatched.target} ({unpatched.retire_when})"


@each_patch
def test_effect(unpatched: Patch) -> None:
    if torch.accelerator.is_available():
        pytest.skip("nothing is replaced where torch has an accelerator")
    _, name = unpatched.target.split(":")
    with pytest.raises(RuntimeError, match="accelerator"):
        getattr(torch.accelerator, name)()
    unpatched.apply()
    assert unpatched.applied()
    assert getattr(torch.accelerator, name)() is None


@each_patch
def test_applying_twice_keeps_the_original(unpatched: Patch) -> None:
    original = unpatched.original()
    unpatched.apply()
    unpatched.apply()
    assert unpatched.original() is original


@each_patch
def test_is_left_alone_with_an_accelerator(
    monkeypatch: pytest.MonkeyPatch, unpatched: Patch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    unpatched.apply()
    assert not unpatched.applied()


@each_patch
def test_is_described(patch: Patch) -> None:
    assert len(patch.why) > 20
    assert patch.retire_when
    assert patch.upstream == "none" or patch.upstream.startswith("https://")


def test_targets_are_distinct() -> None:
    targets = [patch.target for patch in patches.PATCHES]
    assert len(set(targets)) == len(targets)
