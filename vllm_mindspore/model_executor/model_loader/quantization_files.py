# SPDX-License-Identifier: Apache-2.0
"""The quantization description of a checkpoint folder. Imports no MindSpore."""

from __future__ import annotations

from pathlib import Path

from vllm_mindspore.model_executor.model_loader import strict_json
from vllm_mindspore.model_executor.model_loader.safetensors_header import open_regular
from vllm_mindspore.quantization import description
from vllm_mindspore.quantization.description import Description


def read_description(folder: Path) -> Description | None:
    """The description in `folder`, None for a checkpoint of plain weights.

    Raises:
        ValueError: there are several, or it is broken; names the file.
    """
    found = sorted(file for stem in description.STEMS for file in folder.glob(f"{stem}*.json"))
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(
            f"{folder} has {len(found)} quantization descriptions, "
            f"{', '.join(file.name for file in found)}; expected one: remove those that do not "
            "belong to the weights"
        )
    with open_regular(found[0]) as stream:
        content = strict_json.parse_object(stream.read(), str(found[0]))
    return description.parse(found[0], content)
