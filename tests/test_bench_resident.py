# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of resident weights reads of a process, and the checkpoints it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import resident, shapes
from benchmarks.resident import Resident
from vllm_mindspore.inspection.report import inspect

SMAPS = """7f00-7f10 r--p 00000000 fd:00 1  {folder}/model.safetensors
Rss:                  40 kB
Pss:                  20 kB
Anonymous:             0 kB
VmFlags: rd mr
7f10-7f20 rw-p 00000000 00:00 0
Rss:                  12 kB
Pss:                  12 kB
Anonymous:            12 kB
7f20-7f30 r--p 00000000 fd:00 2  /usr/lib/other.so
Rss:                 100 kB
Pss:                   3 kB
Anonymous:             8 kB
"""


def test_pages_of_the_checkpoint_and_of_no_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(50 << 10))
    smaps = tmp_path / "smaps"
    smaps.write_text(SMAPS.format(folder=tmp_path))
    found = resident.read_memory(tmp_path, smaps)
    assert found == Resident(50 << 10, 40 << 10, 20 << 10, 20 << 10)
    base = Resident(1, 1, 1, 10 << 10)
    assert found.weights(base) == 50 << 10
    assert found.ratio(base) == 1.0


@pytest.mark.parametrize("kind", resident.KINDS)
def test_checkpoints_can_be_served(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = shapes.QWEN3_0_6B | {
        **{"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1},
        **{"vocab_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64},
    }
    monkeypatch.setattr(resident, "QWEN3_0_6B", small)
    resident.write(tmp_path, kind)
    assert not inspect(tmp_path).problems
