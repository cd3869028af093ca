# SPDX-License-Identifier: Apache-2.0
"""Folders of compressed weights as vllm-ascend lays them out."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conversion.folders import DESCRIPTIONS
from vllm_mindspore.quantization.description import SPARSE, Tool
from vllm_mindspore.quantization.sparse_description import CODEC, COMPRESSED


def flat(folder: Path, **more: object) -> Path:
    """Makes a folder of rank_N folders a flat one in our coding. `more`: entries of its
    description, None for one that it shall not have."""
    old = folder / DESCRIPTIONS[Tool.GOLDEN_STICK]
    content = json.loads(old.read_text())
    old.unlink()
    for source in folder.glob("rank_*"):
        rank = source.name.removeprefix("rank_")
        for part, file in enumerate(sorted(source.iterdir())):
            file.rename(folder / f"model-rank-{rank}-part-{part}.safetensors")
        source.rmdir()
    types = {
        name: COMPRESSED if kind == SPARSE else kind
        for name, kind in content["rank_0"].items()
        if isinstance(kind, str)
    }
    described = {CODEC: content[CODEC], "model_quant_type": COMPRESSED, **types, **more}
    written = {name: value for name, value in described.items() if value is not None}
    (folder / DESCRIPTIONS[Tool.MODELSLIM]).write_text(json.dumps(written))
    return folder
