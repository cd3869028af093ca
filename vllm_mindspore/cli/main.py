# SPDX-License-Identifier: Apache-2.0
"""Entry of `vllm-mindspore`: our own commands here, every other one is vLLM's, with us active.

An own command is a module of this package with NAME, HELP, add_arguments(parser) and run(args).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn, Protocol, cast

import vllm_mindspore  # at the top: spawned children import this module again and must be activated
from vllm_mindspore import process_end
from vllm_mindspore.cli import refusals

COMMANDS = {
    "convert": "vllm_mindspore.cli.convert",
    "demo": "vllm_mindspore.cli.demo",
    "doctor": "vllm_mindspore.cli.doctor",
    "eval": "vllm_mindspore.cli.eval",
    "inspect": "vllm_mindspore.cli.inspect",
    "quantize": "vllm_mindspore.cli.quantize",
}
PRINTERS = ("doctor", "inspect")
"""Those that only print: a reader that wants no more, such as `head`, ends them without a word."""


class Command(Protocol):
    """What an own command's module provides."""

    NAME: str
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; returns the exit code."""


def entry() -> NoReturn:
    """The console script: `main`, then the end of the process.

    Own commands end without tearing the interpreter down. torch, ZeroMQ and the tokenizers leave
    native threads behind an offline engine; under load the teardown has aborted ("terminate called
    without an active exception", exit code 134) after all results were out.
    """
    if sys.argv[1:2] and sys.argv[1] in PRINTERS:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    status = main()
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command named by the first argument; returns the exit code. What the checks before a
    start refuse is told without a traceback, with exit code 1."""
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except ValueError as error:
        message = refusals.told(error)
        if message is None:
            raise
        print(f"vllm-mindspore: error: {message}", file=sys.stderr, flush=True)
        return 1


def _run(arguments: list[str]) -> int:
    if arguments and arguments[0] in COMMANDS:
        return _run_own(_load(arguments[0]), arguments[1:])
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_own_help(), flush=True)
    if arguments and arguments[0] in ("-v", "--version"):
        print(f"vllm-mindspore {vllm_mindspore.__version__}, vllm ", end="", flush=True)
    return _run_vllm(arguments)


def _load(name: str) -> Command:
    return cast(Command, import_module(COMMANDS[name]))


def _run_own(command: Command, arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=f"vllm-mindspore {command.NAME}", description=command.HELP
    )
    command.add_arguments(parser)
    return command.run(parser.parse_args(arguments))


def _own_help() -> str:
    lines = ["vllm-mindspore: the vLLM command line on MindSpore. Commands of its own:"]
    lines += [f"    {name:<10}{_load(name).HELP}" for name in COMMANDS]
    return "\n".join([*lines, "", "All other commands are those of vLLM:", ""])


def _run_vllm(arguments: list[str]) -> int:
    if arguments[:1] == ["serve"]:
        process_end.leave_on_signals()  # until vLLM serves; importing it takes seconds
    sys.argv = ["vllm-mindspore", *arguments]  # vLLM reads it, and shows it in its usage lines
    from vllm.entrypoints.cli.main import main as vllm_main

    vllm_main()
    return 0


if __name__ == "__main__":
    entry()
