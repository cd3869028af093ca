# SPDX-License-Identifier: Apache-2.0
"""`make eval`: what each way to quantize costs the tiny model, into docs/quantization.md.

    python -m benchmarks.accuracy [--only NAME,...]

Every variant is made by `vllm-mindspore quantize` and measured by `vllm-mindspore eval`: the exam's
whole validation split, answered greedily, and the perplexity of the held-out text.
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

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "quantization.md"
TINY = ROOT / "examples" / "tiny_model"
MODEL, EXAM, TEXT = TINY / "model", TINY / "ceval", TINY / "heldout.txt"
BUILD = ROOT / "build" / "accuracy"
_COMMAND = (sys.executable, "-m", "vllm_mindspore.cli.main")


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        name: as the table has it.
        options: of `vllm-mindspore quantize`; empty for the model as it is.
        close: whether the project promises that it costs at most half a point of accuracy and one
            hundredth of perplexity.
    """

    name: str
    options: tuple[str, ...]
    close: bool = False


def _variant(scheme: str, suppression: str, *, close: bool = False) -> Variant:
    options = ("--scheme", scheme, "--outlier-suppression", suppression)
    return Variant(f"{scheme}, {suppression}", options, close)


VARIANTS = (
    Variant("float", ()),
    _variant("w8a8", "none"),
    _variant("w8a8", "smooth", close=True),
    _variant("w8a8", "osl", close=True),
    Variant("w8a8-dynamic", ("--scheme", "w8a8-dynamic"), close=True),
    Variant("w8a16", ("--scheme", "w8a16")),
    Variant("w4a16", ("--scheme", "w4a16")),
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
    wanted = [names[name] for name in parser.parse_args().only]
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    results = []
    for variant in wanted:
        print(f"{variant.name} ...", flush=True)
        results.append(measure(variant))
    text = table(results)
    print(text)
    if wanted == list(VARIANTS):
        write_section("accuracy", text, PAGE)


def measure(variant: Variant) -> Result:
    """Makes the checkpoint, then asks the engine."""
    folder = MODEL
    if variant.options:
        folder = BUILD / variant.name.replace(", ", "-")
        run("quantize", MODEL, "--output", folder, *variant.options)
    exam = evaluate(folder, "--ceval", EXAM)
    perplexity = evaluate(folder, "--perplexity", TEXT)["perplexity"]
    num_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
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


if __name__ == "__main__":
    main()
