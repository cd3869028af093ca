# SPDX-License-Identifier: Apache-2.0
"""The options of `vllm-mindspore quantize`."""

from __future__ import annotations

import argparse
from pathlib import Path

SPARSE, COMPRESSED = "w8a8s", "w8a8sc"
_SCHEMES = ("w8a8", "w8a8-dynamic", SPARSE, COMPRESSED, "w8a16", "w4a16", "float")
COMPARED = (0.3, 0.5, 0.6, 0.7)
"""Shares of zeros that --compare makes."""
SPARSITY_METHODS = ("sparsegpt", "wanda", "magnitude")
_METHODS = ("none", "smooth", "osl", "os+")
WRITERS = {"golden-stick": "golden-stick", "modelslim": "ascend"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this command."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of the float model")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder to make; new or empty"
    )
    parser.add_argument(
        "--scheme", choices=_SCHEMES, required=True, help="of the linear layers of the decoder"
    )
    parser.add_argument(
        "--outlier-suppression",
        choices=_METHODS,
        default="none",
        help="what is done about outliers of activations (default: none)",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE|CEVAL_DIR",
        help="text in UTF-8, or an exam folder with dev/ (default: a text of the package)",
    )
    parser.add_argument("--calibration-samples", type=int, default=64, help="default: 64")
    parser.add_argument(
        "--calibration-tokens", type=int, default=512, help="of a sample, at most (default: 512)"
    )
    parser.add_argument(
        "--skip",
        metavar="NAME,...",
        help="layers whose names contain one of these stay float (default: lm_head)",
    )
    parser.add_argument(
        "--layer-policy",
        action="append",
        default=[],
        metavar="REGEX=SCHEME",
        help="another scheme, without outlier suppression, or `float`, for layers whose names "
        "match from their start; may be repeated",
    )
    parser.add_argument(
        "--quantize-lm-head",
        action="store_true",
        help="quantize the head too, apart from tied embeddings (an extension of ours)",
    )
    parser.add_argument(
        "--group-size", type=int, help="w4a16: channels that share a scale: 64, 128, 256"
    )
    parser.add_argument(
        "--kv-cache-scheme",
        choices=("int8",),
        help="quantize the key/value cache, too: static scales for each channel (C8)",
    )
    parser.add_argument("--writer", choices=WRITERS, default="golden-stick", help="whose form")
    _add_sparsity_arguments(parser)
    _add_evaluation_arguments(parser)


def _add_sparsity_arguments(parser: argparse.ArgumentParser) -> None:
    sparse = parser.add_argument_group("w8a8s, w8a8sc: weights that become zero")
    sparse.add_argument(
        "--sparsity", type=float, metavar="SHARE", help="of zeros, between 0 and 1 (default: 0.4)"
    )
    sparse.add_argument(
        "--sparsity-method",
        choices=SPARSITY_METHODS,
        help="how they are chosen (default: sparsegpt)",
    )
    sparse.add_argument(
        "--sparsity-pattern", metavar="N:M", help="keep N weights of every M in a row, such as 2:4"
    )
    sparse.add_argument(
        "--tensor-parallel-size",
        type=int,
        metavar="N",
        help="w8a8sc: ranks that the compressed weights are divided among (default: 1)",
    )


def _add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--evaluate",
        type=Path,
        metavar="CEVAL_DIR",
        help="measure the accuracy of both models over val/ of an exam folder, for the report",
    )
    parser.add_argument(
        "--evaluate-questions", type=int, metavar="N", help="of the exam at most, evenly by subject"
    )
    parser.add_argument(
        "--perplexity", type=Path, metavar="FILE", help="measure both models' perplexity of a text"
    )
    shares = ", ".join(f"{100 * share:.0f}" for share in COMPARED)
    parser.add_argument(
        "--compare",
        action="store_true",
        help=f"w8a8s, w8a8sc: make and measure W8A8 and {shares} %% zeros too, for the report",
    )
