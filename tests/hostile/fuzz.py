# SPDX-License-Identifier: Apache-2.0
"""Loads random mutations of a small checkpoint, in a process of its own, and judges each outcome.

`python -m tests.hostile.fuzz FOLDER FIRST COUNT` prints a JSON report. A mutation is made from its
number alone, so FIRST = its number and COUNT = 1 repeat one; a crash leaves its number in
FOLDER/last.
"""

from __future__ import annotations

import json
import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from tests.hostile.files import INDEX, SINGLE
from vllm_mindspore.bridge import to_torch
from vllm_mindspore.model_executor.model_loader.safetensors import SafetensorsSource

WEIGHTS = {
    "embed": torch.arange(40, dtype=torch.float32).reshape(8, 5).to(torch.bfloat16),
    "norm": torch.ones(5, dtype=torch.float16),
    "proj": torch.linspace(-2, 2, 30).reshape(5, 6),
    "none": torch.empty(0, 3),
}
RIGHT = save(WEIGHTS, metadata={"format": "pt"})
NASTY = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 2**64 + 12, 10**400, 0.5, 1e999, "", "F32", "I8", "\0"),
    *([], [0], [[]], {}, {"a": 1}, "../x", "\ud800", "x" * 5000, [1] * 100),
)
Mutation = Callable[[random.Random, bytes], bytes]


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    """1 to 8 bits, more often in the length and header than their share."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        end = min(rng.choice((8, len(data) // 2 + 1, len(data))), len(data))
        changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(rng: random.Random, data: bytes) -> bytes:
    """Any number of bytes from the front."""
    return data[: rng.randrange(len(data) + 1)]


def splice(rng: random.Random, data: bytes) -> bytes:
    """A part copied, moved or removed elsewhere."""
    begin, end, to = (rng.randrange(len(data)) for _ in range(3))
    return data[:to] + data[begin:end] + data[rng.choice((to, min(len(data), to + 16))) :]


def insert(rng: random.Random, data: bytes) -> bytes:
    """Random bytes at a random place."""
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randint(1, 40)) + data[at:]


def lie(rng: random.Random, _: bytes) -> bytes:
    """A right file whose header has one value replaced by a nasty one."""
    length = int.from_bytes(RIGHT[:8], "little")
    header = json.loads(RIGHT[8 : 8 + length])
    tensor = rng.choice(list(header))
    field = rng.choice(list(header[tensor]))
    place, key = rng.choice(((header, tensor), (header[tensor], field)))
    value = place[key]
    if isinstance(value, list) and value and rng.random() < 0.7:
        place, key = value, rng.randrange(len(value))
    place[key] = rng.choice((*NASTY, rng.randint(-10, 100)))
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + RIGHT[8 + length :]


MUTATIONS: tuple[Mutation, ...] = (flip_bits, flip_bits, truncate, splice, insert, lie, lie)


def write(folder: Path, number: int) -> bytes:
    """Writes mutation `number` and returns the bytes of its safetensors file."""
    rng = random.Random(number)
    data = RIGHT
    index = json.dumps({"weight_map": dict.fromkeys(WEIGHTS, SINGLE)}).encode()
    if rng.random() < 0.1:
        index = rng.choice((flip_bits, truncate, splice, insert))(rng, index)
    else:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            data = rng.choice(MUTATIONS)(rng, data) or b"\0"
    (folder / SINGLE).write_bytes(data)
    (folder / INDEX).write_bytes(index)
    return data


def outcome(folder: Path, data: bytes) -> str:
    """`loaded`, `refused`, or what is wrong with how the loader took it."""
    try:
        source = SafetensorsSource(folder, torch.float32)
        taken = {name: source.take(name, tensor.shape) for name, tensor in WEIGHTS.items()}
        source.finish()
    except ValueError as error:
        clear = f"{folder}/" in str(error) and len(str(error)) < 3000
        return "refused" if clear or SINGLE in str(error) else f"unclear: {error!r:.300}"
    except Exception:  # noqa: BLE001 - whatever else it raises is the finding
        return traceback.format_exc()[-1000:]
    return _compare({name: to_torch(parameter) for name, parameter in taken.items()}, data)


def _compare(found: dict[str, torch.Tensor], data: bytes) -> str:
    """What was loaded against the reading of the safetensors library."""
    expected = load(data)
    for name, tensor in found.items():
        if not torch.equal(tensor, expected[name].to(torch.float32)):
            return f"tensor {name} is not what the safetensors library reads"
    return "loaded"


def run(folder: Path, first: int, count: int) -> dict[str, Any]:
    """The report: how many were loaded and refused, and what failed by its number."""
    report: dict[str, Any] = {"loaded": 0, "refused": 0, "failed": {}}
    for number in range(first, first + count):
        (folder / "last").write_text(str(number))
        data = write(folder, number)
        try:
            result = outcome(folder, data)
        except Exception:  # noqa: BLE001 - the safetensors library refuses what was loaded
            result = traceback.format_exc()[-1000:]
        if result in ("loaded", "refused"):
            report[result] += 1
        else:
            report["failed"][number] = result
    return report


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
