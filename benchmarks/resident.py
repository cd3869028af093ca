# SPDX-License-Identifier: Apache-2.0
"""Memory that weights of the Qwen3-0.6B shape take in an engine, beside the bytes of their files.

    python -m benchmarks.resident [--kind W4A16 ...]

One engine process per checkpoint, of random weights, after a prefill and decode steps. Weights are
the resident pages of the mapped files, and what the process has in anonymous memory beyond an
engine of the same shape whose float16 weights all stay mapped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.shapes import LINEARS, QWEN3_0_6B, write_quantized_shape, write_shape
from vllm_mindspore.quantization.ptq import tensor_files
from vllm_mindspore.quantization.ptq.tensor_files import Entry

BASE = "float16"
KINDS = ("bfloat16", "W8A8", "W8A8_DYNAMIC", "W8A16", "W4A16", "W4A16, groups of 128")
GOAL = 1.05
_CACHE_BYTES = 64 << 20
_INT8, _INT32, _FLOAT32 = torch.int8, torch.int32, torch.float32
Shapes = dict[str, tuple[torch.dtype, tuple[int, ...]]]


@dataclass(frozen=True)
class Resident:
    """Bytes of one engine process.

    Attributes:
        files: of the checkpoint.
        mapped: pages of these files that are in memory.
        shared: the same, divided among the processes that map them.
        anonymous: memory of no file, all of the process.
    """

    files: int
    mapped: int
    shared: int
    anonymous: int

    def weights(self, base: Resident) -> int:
        """Of memory, with the engine `base` to tell what is not weights."""
        return self.mapped + self.anonymous - base.anonymous

    def ratio(self, base: Resident) -> float:
        """To the files."""
        return self.weights(base) / self.files


def main() -> None:
    """Prints a Markdown table; with --measure, the numbers of one folder as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure is not None:
        print(json.dumps(asdict(measure(args.measure))))
        return
    base = in_process(BASE)
    print(
        f"float16: {base.files:,} bytes of files, {base.mapped:,} of them in memory; "
        f"{base.anonymous:,} bytes of anonymous memory, which are no weights.\n\n"
        "| checkpoint | files | mapped | of it PSS | anonymous beyond float16 | weights / files | "
        "goal |\n"
        "|---|---|---|---|---|---|---|"
    )
    for kind in args.kind:
        print(row(kind, in_process(kind), base), flush=True)


def row(kind: str, found: Resident, base: Resident) -> str:
    """One checkpoint."""
    goal = "" if kind == "bfloat16" else f"at most {GOAL}"
    return (
        f"| {kind} | {found.files:,} | {found.mapped:,} | {found.shared:,} | "
        f"{found.anonymous - base.anonymous:,} | {found.ratio(base):.3f} | {goal} |"
    )


def in_process(kind: str) -> Resident:
    """What an engine in a process of its own takes."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), kind)
        command = [sys.executable, "-m", "benchmarks.resident", "--measure", name]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Resident(**json.loads(run.stdout.splitlines()[-1]))


def write(folder: Path, kind: str) -> None:
    """A checkpoint of random weights."""
    dtype = torch.float16 if kind == BASE else torch.bfloat16
    name, _, grouped = kind.partition(",")
    if name in (BASE, "bfloat16"):
        write_shape(folder, QWEN3_0_6B | {"torch_dtype": str(dtype).removeprefix("torch.")})
    else:
        write_quantized_shape(folder, QWEN3_0_6B, name)
    entries = list(_entries(dtype, name, 128 if grouped else 0))
    if name not in (BASE, "bfloat16"):
        modules = json.loads((folder / "quantization_description.json").read_text())
        types = {key.rpartition(".")[0]: value for key, value in modules.items()}
        full = {e.name: types.get(e.name.rpartition(".")[0], "FLOAT") for e in entries}
        tensor_files.write_json(folder / "quantization_description.json", full)
    tensor_files.write(folder / "model.safetensors", entries, {"format": "ms"})


def measure(folder: Path) -> Resident:
    """This process, once it serves the checkpoint."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from benchmarks.engine import generate, start_engine

    # Steps of few tokens, so that memory for activations is little.
    limits = {"max_model_len": 64, "max_num_batched_tokens": 64, "max_num_seqs": 8}
    options = {"load_format": "auto", "dtype": "auto", "kv_cache_memory_bytes": _CACHE_BYTES}
    llm = start_engine(folder, **options, **limits)
    for batch in (1, 8):
        generate(llm, batch, 48, 8)
    return read_memory(folder)


def read_memory(folder: Path, smaps: Path = Path("/proc/self/smaps")) -> Resident:
    """What is resident of files in `folder` and of no file."""
    files = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    mapped = shared = anonymous = 0
    ours = False
    for line in smaps.read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            ours = len(rest) > 4 and " ".join(rest[4:]).startswith(str(folder))
            continue
        size = int(rest[0]) << 10 if rest[-1] == "kB" else 0
        if ours:
            mapped += size if first == "Rss:" else 0
            shared += size if first == "Pss:" else 0
        elif first == "Anonymous:":
            anonymous += size
    return Resident(files, mapped, shared, anonymous)


def _entries(dtype: torch.dtype, kind: str, group: int) -> Iterator[Entry]:
    """Every tensor of the checkpoint."""
    hidden, vocabulary = QWEN3_0_6B["hidden_size"], QWEN3_0_6B["vocab_size"]
    head = QWEN3_0_6B["head_dim"]
    yield _random("model.embed_tokens.weight", dtype, (vocabulary, hidden))
    yield _random("model.norm.weight", dtype, (hidden,))
    for index in range(QWEN3_0_6B["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield _random(f"{layer}.{norm}.weight", dtype, (hidden,))
        for norm in ("q_norm", "k_norm"):
            yield _random(f"{layer}.self_attn.{norm}.weight", dtype, (head,))
        for name in LINEARS:
            size, inner = _extents(name)
            for part, (stored, shape) in _parts(dtype, kind, group, size, inner).items():
                yield _random(f"{layer}.{name}.{part}", stored, shape)


def _extents(linear: str) -> tuple[int, int]:
    """N and K of a linear layer."""
    config = QWEN3_0_6B
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    last = linear.rpartition(".")[2].removesuffix("_proj")
    sizes = {"q": queries, "o": hidden, "gate": inner, "up": inner, "down": hidden}
    inputs = {"o": queries, "down": inner}
    return sizes.get(last, keys), inputs.get(last, hidden)


def _parts(dtype: torch.dtype, kind: str, group: int, size: int, inner: int) -> Shapes:
    """The tensors of one linear layer in Golden Stick's form."""
    scale = (inner // group, size) if group else (size,)
    by_weight: Shapes = {"weight_scale": (dtype, scale), "weight_offset": (_INT32, scale)}
    weights: dict[str, Callable[[], Shapes]] = {
        "W8A8": lambda: {
            "weight": (_INT8, (size, inner)),
            "deq_scale": (_FLOAT32, (size,)),
            "quant_bias": (_INT32, (size,)),
            "input_scale": (dtype, (inner,)),
            "input_offset": (_INT8, (inner,)),
        },
        "W8A8_DYNAMIC": lambda: {"weight": (_INT8, (size, inner)), **by_weight},
        "W8A16": lambda: {"weight": (_INT8, (size, inner)), **by_weight},
        "W4A16": lambda: {"weight": (_INT8, (inner, size // 2)), **by_weight},
    }
    return weights[kind]() if kind in weights else {"weight": (dtype, (size, inner))}


def _random(name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Entry:
    """Small weights, scales that keep sums small, offsets of zero."""

    def read() -> torch.Tensor:
        if name.endswith(("offset", "quant_bias")):
            return torch.zeros(shape, dtype=dtype)
        if name.endswith("scale"):
            return torch.full(shape, 1e-2 if "input" in name else 1e-4, dtype=dtype)
        if dtype == _INT8:
            return torch.randint(-128, 128, shape, dtype=dtype)
        return torch.randn(shape, dtype=dtype) * 0.02

    return Entry(name, dtype, shape, read)


if __name__ == "__main__":
    main()
