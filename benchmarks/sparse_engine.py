# SPDX-License-Identifier: Apache-2.0
"""Engines with dense and compressed int8 weights of two shapes, alternately in one process.

    python -m benchmarks.sparse_engine [--threads 2] [--rounds 5] [--shape 0.6B] [--sparsity 50 70]

Milliseconds of a decode step at batch 1 and 8 and of a 512-token prefill, medians; ratios are
medians of the ratios to dense int8 within a round. Weights are random codes, `sparsity` percent of
those of decoder layers zeros, which the dense side has as well; all of int8 have the same head. A
bf16 engine shows that dense int8 is as fast as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.alternately import Side, measure, report, speed
from benchmarks.engine import start_engine
from benchmarks.peers.checkpoint import weight_shapes
from benchmarks.quantized import GOALS
from benchmarks.shapes import HEAD, QWEN3_0_6B, decode_weight_bytes, write_shape

if TYPE_CHECKING:
    from vllm import LLM

QWEN3_1_7B = QWEN3_0_6B | {"hidden_size": 2048, "intermediate_size": 6144}
SHAPES = {"0.6B": QWEN3_0_6B, "1.7B": QWEN3_1_7B}
# Speed over dense int8: decode at batch 1 by shape and percent of zeros, batch 8, prefill.
DECODE_GOALS = {("0.6B", 50): 1.15, ("0.6B", 70): 1.35, ("1.7B", 50): 1.25, ("1.7B", 70): 1.55}
BATCH_GOAL, PREFILL_GOAL = 1.0, 0.9
INT8_GOAL = GOALS["int8 head"][0]  # of dense int8 over bf16, decode at batch 1
_DESCRIPTION = "quantization_description.json"


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shape", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--sparsity", nargs="+", type=int, default=[50, 70], metavar="PERCENT")
    args = parser.parse_args()
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # one process holds all engines
    os.environ["VLLM_MS_NUM_THREADS"] = str(args.threads)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    for shape in args.shape:
        with tempfile.TemporaryDirectory() as folder:
            sides = start(Path(folder), shape, args.sparsity)
            measure(sides, args.rounds)
            print(f"\nQwen3-{shape} shape. {text(shape, sides, args.sparsity)}", flush=True)
            for side in sides:
                side.llm.llm_engine.engine_core.shutdown()


def start(folder: Path, shape: str, sparsity: Sequence[int]) -> list[Side]:
    """The dense engine first, then a compressed one for each percentage of zeros, then bf16. The
    dense weights are those of the first percentage, uncompressed."""
    from vllm_mindspore.conversion import convert

    config = SHAPES[shape] | {"tie_word_embeddings": False, "torch_dtype": "float16"}
    int8 = decode_weight_bytes(config, layer_bytes=1, head_bytes=1)
    sides: list[Side] = []
    for percent in sparsity:
        dense, sparse = folder / f"dense-{percent}", folder / f"sparse-{percent}"
        write_checkpoint(dense, config, percent / 100)
        convert.compress(dense, sparse, 1)
        if sides:
            shutil.rmtree(dense)
        else:
            sides.append(Side("dense int8", _engine(dense), int8))
        sides.append(Side(_name(percent), _engine(sparse), compressed_bytes(sparse)))
    plain = write_shape(folder / "bf16", SHAPES[shape])
    sides.append(Side("bf16", start_engine(plain), decode_weight_bytes(SHAPES[shape])))
    return sides


def text(shape: str, sides: list[Side], sparsity: Sequence[int]) -> str:
    """The table with goals, and how fast dense int8 is over bf16, the last side."""
    goals = {
        _name(percent): (DECODE_GOALS.get((shape, percent)), BATCH_GOAL, PREFILL_GOAL)
        for percent in sparsity
    }
    ratio = speed(sides[0], sides[-1], "decode, batch 1")
    return (
        f"{report(sides, goals)}\n\nDense int8 over bf16 in this run, decode at batch 1: "
        f"{ratio:.2f} times as fast, goal {INT8_GOAL}."
    )


def _name(percent: int) -> str:
    return f"W8A8SC, {percent} % zeros"


def _engine(folder: Path) -> LLM:
    import vllm_mindspore  # noqa: F401, I001 - first, as users write it
    from vllm import LLM

    return LLM(
        str(folder),
        dtype="float16",
        skip_tokenizer_init=True,
        max_model_len=1024,
        max_num_batched_tokens=1024,
        max_num_seqs=32,
        enable_prefix_caching=False,
    )


def write_checkpoint(folder: Path, config: dict[str, Any], sparsity: float) -> None:
    """A checkpoint of type W8A8S with random codes."""
    from safetensors.numpy import save_file

    write_shape(folder, config)
    shapes = weight_shapes(config)
    shapes[f"{HEAD}.weight"] = (config["vocab_size"], config["hidden_size"])
    types, found = {}, {}
    random = np.random.default_rng(0)
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        kind = "W8A8" if module == HEAD else "W8A8S" if module.endswith("_proj") else "FLOAT"
        zeros = sparsity if kind == "W8A8S" else 0.0
        for tensor, values in _tensors(module, shape, kind, zeros, random):
            found[tensor], types[tensor] = values, kind
    save_file(found, folder / "quant-model-00001-of-00001.safetensors")
    (folder / _DESCRIPTION).write_text(json.dumps(types))


def _tensors(
    module: str, shape: tuple[int, ...], kind: str, zeros: float, random: np.random.Generator
) -> Iterator[tuple[str, np.ndarray]]:
    if kind == "FLOAT":
        values = np.ones(shape) if len(shape) == 1 else random.standard_normal(shape, np.float32)
        yield f"{module}.weight", (values * (1 if len(shape) == 1 else 0.02)).astype(np.float16)
        return
    outputs, inner = shape
    codes = random.integers(-127, 128, shape, np.int8)
    codes[random.integers(0, 1000, shape, np.int16) < round(1000 * zeros)] = 0
    offset = 3
    yield f"{module}.weight", codes
    yield f"{module}.deq_scale", np.full(outputs, 1e-5, np.float32)
    yield f"{module}.quant_bias", -offset * codes.sum(1, dtype=np.int32)
    yield f"{module}.input_scale", np.full(inner, 0.03, np.float16)
    yield f"{module}.input_offset", np.full(inner, offset, np.int8)


def compressed_bytes(folder: Path) -> int:
    """Of the weights that a decode step reads: everything but the embeddings."""
    from safetensors import safe_open

    total = 0
    for file in sorted((folder / "rank_0").glob("*.safetensors")):
        with safe_open(file, "np") as tensors:
            total += sum(
                tensors.get_tensor(name).nbytes
                for name in tensors.keys()  # noqa: SIM118 - no mapping
                if "embed_tokens" not in name and name.endswith((".weight", ".index"))
            )
    return total


if __name__ == "__main__":
    main()
