# SPDX-License-Identifier: Apache-2.0
"""`vllm-mindspore quantize --compare`: the same model as W8A8, and with other shares of zeros."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_mindspore.cli.quantize_arguments import COMPARED, COMPRESSED, SPARSE

if TYPE_CHECKING:
    from vllm_mindspore.quantization.ptq.report import Evaluation

_DENSE = {"scheme": "w8a8", "sparsity": None, "sparsity_method": None, "tensor_parallel_size": None}
_NOT_MEASURED = {"evaluate": None, "evaluate_questions": None, "perplexity": None}

Measure = Callable[[str, argparse.Namespace], "Evaluation"]
"""Makes what the arguments ask for, and measures it under that name."""


def check(args: argparse.Namespace) -> None:
    """Raises ValueError for options that leave nothing to compare."""
    if not args.compare:
        return
    if args.scheme not in (SPARSE, COMPRESSED) or args.sparsity_pattern is not None:
        asked = args.scheme if args.sparsity_pattern is None else "--sparsity-pattern"
        raise ValueError(
            f"--compare is about shares of zeros of w8a8s and w8a8sc; {asked} has none to choose"
        )
    if args.evaluate is None and args.perplexity is None:
        raise ValueError(
            "--compare needs something to compare: --evaluate CEVAL_DIR or --perplexity FILE"
        )


def added(found: Evaluation, args: argparse.Namespace, kept: Path, measure: Measure) -> Evaluation:
    """What was found of the float and the made model, with what `measure` finds of the others, one
    after the other; their folders are in `kept` meanwhile."""
    from vllm_mindspore.quantization.ptq.report import BY_ZEROS, W8A8

    values: dict[str, dict[str, Any]] = {
        name: {**measured, BY_ZEROS: {}} for name, measured in found.items() if measured
    }
    for name, value in _of(measure, W8A8, _changed(args, kept, W8A8, _DENSE)).items():
        values[name][W8A8] = value
    for share in COMPARED:
        key = str(share)
        sparse = _changed(args, kept, f"{args.scheme}-{key}", {"sparsity": share})
        for name, value in _of(measure, key, sparse).items():
            values[name][BY_ZEROS][key] = value
    return {**found, **values}


def _changed(
    args: argparse.Namespace, kept: Path, name: str, changes: Mapping[str, Any]
) -> argparse.Namespace:
    output = {"output": kept / name, "compare": False}
    return argparse.Namespace(**{**vars(args), **_NOT_MEASURED, **changes, **output})


def _of(measure: Measure, which: str, args: argparse.Namespace) -> dict[str, Any]:
    return {name: found[which] for name, found in measure(which, args).items() if found}
