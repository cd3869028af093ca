# SPDX-License-Identifier: Apache-2.0
"""`vllm-mindspore inspect DIR`: what a checkpoint is, and whether it can be served."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from vllm_mindspore.inspection import compressed
from vllm_mindspore.inspection.report import as_json, as_text, inspect

NAME = "inspect"
HELP = "say what a checkpoint folder is: tool, types of layers, sizes, scales, problems"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", type=_folder, metavar="DIR", help="a checkpoint folder")
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the report; returns 1 when the checkpoint has problems."""
    if compressed.is_compressed(args.folder):
        ranks = compressed.inspect(args.folder)
        content, text = compressed.as_json(ranks), compressed.as_text(ranks)
    else:
        report = inspect(args.folder)
        content, text = as_json(report), as_text(report)
    print(json.dumps(content, indent=1) if args.json else text)
    return 1 if content["problems"] else 0


def _folder(text: str) -> Path:
    folder = Path(text)
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return folder
