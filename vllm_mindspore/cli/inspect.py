# SPDX-License-Identifier: Apache-2.0
"""`vllm-mindspore inspect DIR`: what a checkpoint is, and whether it can be served."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from vllm_mindspore.inspection.report import as_json, as_text, inspect

NAME = "inspect"
HELP = "say what a checkpoint folder is: tool, types of layers, sizes, scales, problems"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", type=_folder, metavar="DIR", help="a checkpoint folder")
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the report; returns 1 when the checkpoint has problems."""
    report = inspect(args.folder)
    print(json.dumps(as_json(report), indent=1) if args.json else as_text(report))
    return 1 if report.problems else 0


def _folder(text: str) -> Path:
    folder = Path(text)
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return folder
