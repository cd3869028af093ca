# SPDX-License-Identifier: Apache-2.0
"""`vllm-mindspore convert`: compress sparse weights, uncompress them, or divide them anew."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm_mindspore.conversion.convert import Summary

NAME = "convert"
HELP = "compress sparse weights (W8A8SC) for a number of ranks, or uncompress them"

_TARGETS = ("w8a8sc", "w8a8s", "w8a8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "source", type=Path, metavar="DIR", help="a folder of W8A8S, W8A8 or W8A8SC"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder to make; new or empty"
    )
    parser.add_argument(
        "--tensor-parallel-size",
        type=int,
        default=1,
        metavar="N",
        help="ranks that compressed weights are divided among (default: 1)",
    )
    parser.add_argument(
        "--to", choices=_TARGETS, default=_TARGETS[0], help="what is made (default: w8a8sc)"
    )


def run(args: argparse.Namespace) -> int:
    """Convert. Returns 0, 2 after an error message, or 130 after Ctrl-C."""
    try:
        summary = _convert(args)
    except (ValueError, OSError) as error:
        print(f"vllm-mindspore convert: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped; nothing was written.", file=sys.stderr)
        return 130
    _print(summary, args.output)
    return 0


def _convert(args: argparse.Namespace) -> Summary:
    from tqdm import tqdm  # type: ignore[import-untyped]

    from vllm_mindspore.conversion.convert import Target, convert

    if args.tensor_parallel_size < 1:
        raise ValueError(
            f"--tensor-parallel-size {args.tensor_parallel_size}: expected a number from 1"
        )
    with tqdm(desc="Converting", unit="part") as bar:
        return convert(
            args.source,
            args.output,
            Target(args.to),
            args.tensor_parallel_size,
            lambda _: bar.update(),
        )


def _print(summary: Summary, output: Path) -> None:
    if summary.layers:
        weights = sum(layer.outputs * layer.inputs for layer in summary.layers)
        stored = sum(layer.stream_bytes + layer.index_bytes for layer in summary.layers)
        zeros = 1 - sum(layer.nonzero for layer in summary.layers) / weights
        print(
            f"{len(summary.layers)} layers compressed: {zeros:.1%} of the weights are zero, "
            f"{stored / weights:.1%} of their bytes are left"
        )
    before, after = summary.bytes_before, summary.bytes_after
    print(f"All tensors: {before / 1e6:.2f} MB before, {after / 1e6:.2f} MB now")
    for note in summary.notes:
        print(f"note: {note}")
    print(f"Serve it: vllm-mindspore serve {output}")
