# SPDX-License-Identifier: Apache-2.0
"""`make eval`: what each way to quantize costs the tiny model, into docs/quantization.md.

    python -m benchmarks.accuracy [--only NAME ...] [--split dev|val|test]

Every variant is made by `vllm-mindspore quantize` and measured by `vllm-mindspore eval`: the exam's
whole validation split, answered greedily, and the perplexity of the held-out text. Sparse variants
are calibrated on texts like those the model was trained on. The recommended share of zeros is the
largest that costs at most half a point of `dev`, which prints it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.page import write_section
from vllm_mindspore.quantization.ptq import sparsity_plot
from vllm_mindspore.quantization.ptq.sparsity import RECOMMENDED

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "quantization.md"
TINY = ROOT / "examples" / "tiny_model"
MODEL, EXAM, TEXT = TINY / "model", TINY / "ceval", TINY / "heldout.txt"
IMAGES = ROOT / "docs" / "images"
BUILD = ROOT / "build" / "accuracy"
_DRAWN = "w8a8sc"
CORPUS = BUILD / "corpus"
CORPUS_DOCUMENTS, CALIBRATION_SAMPLES = 2000, 256
_COMMAND = (sys.executable, "-m", "vllm_mindspore.cli.main")


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        name: as the table has it.
        options: of `vllm-mindspore quantize`; empty for the model as it is.
        close: whether the project promises that it costs at most half a point of accuracy and one
            hundredth of perplexity.
        sparsity: share of zeros of those that are drawn, 0 for others.
    """

    name: str
    options: tuple[str, ...]
    close: bool = False
    sparsity: float = 0.0


def _sparse(scheme: str, share: float) -> Variant:
    calibration = ("--calibration", str(CORPUS / "train.txt"))
    samples = ("--calibration-samples", str(CALIBRATION_SAMPLES))
    options = ("--scheme", scheme, "--sparsity", str(share), *calibration, *samples)
    close = share == RECOMMENDED
    return Variant(f"{scheme}, {share:.0%}", options, close, share if scheme == _DRAWN else 0.0)


def _variant(scheme: str, suppression: str, *, close: bool = False) -> Variant:
    options = ("--scheme", scheme, "--outlier-suppression", suppression)
    return Variant(f"{scheme}, {suppression}", options, close)


DENSE = "w8a8, none"
"""What sparse variants are compared with."""
POINTS = 0.005
"""Of accuracy, that zeros may cost."""
VARIANTS = (
    Variant("float", ()),
    _variant("w8a8", "none"),
    _variant("w8a8", "smooth", close=True),
    _variant("w8a8", "osl", close=True),
    Variant("w8a8-dynamic", ("--scheme", "w8a8-dynamic"), close=True),
    Variant("w8a16", ("--scheme", "w8a16")),
    Variant("w4a16", ("--scheme", "w4a16")),
    _sparse("w8a8s", RECOMMENDED),
    *(_sparse(_DRAWN, share) for share in (0.3, 0.4, 0.5, 0.6, 0.7)),
    Variant("c8", ("--scheme", "float", "--kv-cache-scheme", "int8")),
)


@dataclass(frozen=True)
class Result:
    """What was measured of one variant: bytes of weights, share of right answers, perplexity."""

    variant: Variant
    num_bytes: int
    questions: int
    accuracy: float
    perplexity: float


def main() -> None:
    """Makes and measures the variants one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = {variant.name: variant for variant in VARIANTS}
    parser.add_argument("--only", nargs="+", choices=names, default=list(names))
    parser.add_argument("--split", choices=("dev", "val", "test"), default="val")
    args = parser.parse_args()
    wanted = [names[name] for name in args.only]
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    write_corpus()
    results = []
    for variant in wanted:
        print(f"{variant.name} ...", flush=True)
        results.append(measure(variant, args.split))
    text = table(results)
    print(text)
    affordable = [result.variant.sparsity for result in results if affords(result, results)]
    if affordable:
        print(f"\nMost zeros within half a point of `{DENSE}`: {max(affordable):.0%}")
    if wanted == list(VARIANTS) and args.split == "val":
        write_section("accuracy", text, PAGE)
        draw(results, IMAGES)


def affords(result: Result, results: Sequence[Result]) -> bool:
    """Whether it has zeros, and at most half a point less than dense W8A8, which was measured."""
    dense = [other.accuracy for other in results if other.variant.name == DENSE]
    return bool(result.variant.sparsity and dense and result.accuracy >= dense[0] - POINTS)


def write_corpus() -> None:
    """Texts of the tiny model's world, as its training had them."""
    script = [sys.executable, "corpus.py", str(CORPUS), "--documents", str(CORPUS_DOCUMENTS)]
    subprocess.run(script, cwd=TINY, check=True)


def measure(variant: Variant, split: str) -> Result:
    """Makes the checkpoint, then asks the engine."""
    folder = MODEL
    if variant.options:
        folder = BUILD / variant.name.replace(", ", "-").replace(" ", "")
        run("quantize", MODEL, "--output", folder, *variant.options)
    exam = evaluate(folder, "--ceval", EXAM, "--split", split)
    perplexity = evaluate(folder, "--perplexity", TEXT)["perplexity"]
    num_bytes = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    return Result(variant, num_bytes, exam["questions"], exam["accuracy"], perplexity)


def evaluate(folder: Path, *what: object) -> dict[str, Any]:
    """The result of one `vllm-mindspore eval`."""
    output = BUILD / "result.json"
    run("eval", folder, *what, "--output", output)
    result: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return result


def run(*words: object) -> None:
    """A command of the project in its own process; its output is shown if it fails."""
    command = [*_COMMAND, *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{' '.join(command)}: exit code {done.returncode}")


def table(results: Sequence[Result]) -> str:
    """A Markdown table; differences are to the first row."""
    base = results[0]
    lines = [
        f"{base.questions} questions; differences are to `{base.variant.name}`.",
        "",
        "| | weights | accuracy | | perplexity | | promised |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        points = 100 * (result.accuracy - base.accuracy)
        worse = 100 * (result.perplexity / base.perplexity - 1)
        lines.append(
            f"| {result.variant.name} | {result.num_bytes / 1e6:.2f} MB | "
            f"{100 * result.accuracy:.2f} % | {points:+.2f} | {result.perplexity:.4f} | "
            f"{worse:+.2f} % | {'-0.50, +1.00 %' if result.variant.close else ''} |"
        )
    return "\n".join(lines)


def draw(results: Sequence[Result], folder: Path) -> None:
    """Accuracy and perplexity over the share of zeros, beside the dense ones."""
    for measure_name, factor, unit in (
        ("accuracy", 100.0, "% right"),
        ("perplexity", 1.0, "perplexity"),
    ):
        values = {result.variant: factor * getattr(result, measure_name) for result in results}
        sparse = {variant.sparsity: value for variant, value in values.items() if variant.sparsity}
        dense = {
            label: value
            for label, name in (("W8A8", DENSE), ("float", "float"))
            for variant, value in values.items()
            if variant.name == name
        }
        image = sparsity_plot.svg("W8A8SC", sparse, dense, unit)
        (folder / f"sparsity_{measure_name}.svg").write_text(image + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
