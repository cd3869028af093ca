# SPDX-License-Identifier: Apache-2.0
"""`vllm-mindspore quantize`: make a quantized checkpoint of a float one."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_mindspore.cli import compare_zeros, quantize_arguments
from vllm_mindspore.cli.quantize_arguments import COMPRESSED, SPARSE, SPARSITY_METHODS, WRITERS

if TYPE_CHECKING:
    from vllm_mindspore.quantization.ptq.calibration_data import Calibration
    from vllm_mindspore.quantization.ptq.evaluation import Data
    from vllm_mindspore.quantization.ptq.job import Job
    from vllm_mindspore.quantization.ptq.output_folder import Evaluate
    from vllm_mindspore.quantization.ptq.policy import Choice, Policy, Suppression
    from vllm_mindspore.quantization.ptq.report import Evaluation
    from vllm_mindspore.quantization.ptq.sparsity import Sparsity
    from vllm_mindspore.quantization.ptq.work_folder import WorkFolder

NAME = "quantize"
HELP = "make a quantized checkpoint: W8A8, W8A8 per token or sparse, W8A16, W4A16, int8 caches"

add_arguments = quantize_arguments.add_arguments


def run(args: argparse.Namespace) -> int:
    """Check, quantize, write. Returns 0, 2 after an error message, or 130 after Ctrl-C."""
    args.output = args.output.resolve()
    try:
        _finish(args)
        _print_summary(args.output)
    except (ValueError, OSError) as error:
        print(f"vllm-mindspore quantize: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on after the last finished layer.", file=sys.stderr)
        return 130
    return 0


def prepare(args: argparse.Namespace) -> tuple[Job, Calibration]:
    """Everything that is checked before any work.

    Raises:
        ValueError: options that do not go together or match nothing, an output that exists, a
            model that is quantized or not supported, no calibration data, no room on the disk.
    """
    from vllm_mindspore.quantization.description import Tool
    from vllm_mindspore.quantization.ptq import calibration_data, output_folder
    from vllm_mindspore.quantization.ptq.calibration_data import Amount
    from vllm_mindspore.quantization.ptq.float_checkpoint import FloatCheckpoint
    from vllm_mindspore.quantization.ptq.job import Job
    from vllm_mindspore.quantization.ptq.policy import resolve

    choice = _choice(args)
    if args.tensor_parallel_size is not None and not _is_compressed(args):
        raise ValueError(
            f"--tensor-parallel-size {args.tensor_parallel_size} is for {COMPRESSED}; others are "
            "divided when they are loaded"
        )
    compare_zeros.check(args)
    amount = Amount(args.calibration_samples, args.calibration_tokens)
    if not output_folder.has_work(args.output):
        output_folder.check_place(args.output, args.model)
    _data(args)
    checkpoint = FloatCheckpoint(args.model)
    policies = resolve(checkpoint.config, choice)
    if _is_compressed(args):
        _check_any_compressed(args, policies)
    tokenizer = calibration_data.load_tokenizer(args.model)
    calibration = calibration_data.read(args.calibration, tokenizer, amount)
    tool = Tool(WRITERS[args.writer])
    job = Job(checkpoint, policies, calibration.samples, tool, choice.int8_cache)
    if not output_folder.is_complete(job, args.output, _compressed_for(args)):
        output_folder.check_place(args.output, args.model)
        folders = 2 if _is_compressed(args) else 1
        output_folder.check_room(job, args.output, (1 + args.compare) * (1 + folders) - 1)
    if _is_compressed(args):
        from vllm_mindspore.conversion import compressed_output

        compressed_output.check(job, _ranks(args))
    return job, calibration


def _finish(args: argparse.Namespace) -> None:
    """Makes the output, or what an interruption has left to do."""
    from vllm_mindspore.quantization.ptq import output_folder

    job, calibration = prepare(args)
    if output_folder.is_complete(job, args.output, _compressed_for(args)):
        _say(f"{args.output} is complete already; removing what it was made of")
        output_folder.remove_work(args.output)
    else:
        _make(args, job, calibration)


def _is_compressed(args: argparse.Namespace) -> bool:
    return bool(args.scheme == COMPRESSED)


def _ranks(args: argparse.Namespace) -> int:
    return 1 if args.tensor_parallel_size is None else int(args.tensor_parallel_size)


def _compressed_for(args: argparse.Namespace) -> int | None:
    """Ranks, if the output is to be compressed."""
    return _ranks(args) if _is_compressed(args) else None


def _check_any_compressed(args: argparse.Namespace, policies: Mapping[str, Policy]) -> None:
    """Raises ValueError if no layer is sparse: those are compressed, and no others."""
    from vllm_mindspore.quantization.description import SPARSE

    if any(policy.kind == SPARSE for policy in policies.values()):
        return
    given = [f"--layer-policy {text}" for text in args.layer_policy]
    if args.skip is not None:
        given.insert(0, f"--skip {args.skip}")
    raise ValueError(
        f"{COMPRESSED} compresses sparse layers of the decoder; with {' and '.join(given)} there "
        "are none: name fewer layers, or use another scheme"
    )


def _choice(args: argparse.Namespace) -> Choice:
    from vllm_mindspore.model_executor.models.layout import HEAD
    from vllm_mindspore.quantization.ptq.policy import Choice, Suppression

    schemes = dict(_policy_option(text) for text in args.layer_policy)
    if args.group_size and "w4a16" not in (args.scheme, *schemes.values()):
        raise ValueError(f"--group-size {args.group_size} is for w4a16, and no layer has it")
    sparsity = _sparsity(args, (args.scheme, *schemes.values()))
    by_pattern = {
        pattern: _policy(args, scheme, Suppression.NONE, sparsity)
        for pattern, scheme in schemes.items()
    }
    default = _policy(args, args.scheme, Suppression(args.outlier_suppression), sparsity)
    kept_float = [] if args.quantize_lm_head else [HEAD]
    skip = kept_float if args.skip is None else [name.strip() for name in args.skip.split(",")]
    int8_cache = args.kv_cache_scheme == "int8"
    return Choice(default, by_pattern, skip, head=args.quantize_lm_head, int8_cache=int8_cache)


def _policy_option(text: str) -> tuple[str, str]:
    """Pattern and scheme of REGEX=SCHEME."""
    from vllm_mindspore.quantization.ptq.policy import SCHEMES

    pattern, _, scheme = text.rpartition("=")
    if not pattern or scheme not in SCHEMES:
        raise ValueError(
            f"--layer-policy {text!r}: expected REGEX=SCHEME with one of {', '.join(SCHEMES)}"
        )
    return pattern, scheme


def _sparsity(args: argparse.Namespace, schemes: Sequence[str]) -> Sparsity | None:
    """What sparse layers are to have; None if no layer is."""
    from vllm_mindspore.quantization.ptq import sparsity
    from vllm_mindspore.quantization.ptq.sparsity import Method

    names = ("sparsity", "sparsity_method", "sparsity_pattern")
    given = [name for name in names if getattr(args, name) is not None]
    if not {SPARSE, COMPRESSED} & set(schemes):
        for name in given:
            option = name.replace("_", "-")
            raise ValueError(
                f"--{option} {getattr(args, name)} is for {SPARSE} and {COMPRESSED}, and no "
                "layer has it"
            )
        return None
    text = args.sparsity_pattern
    pattern = None if text is None else sparsity.parse_pattern(text)
    method = Method(args.sparsity_method or SPARSITY_METHODS[0])
    return sparsity.sparsity(args.sparsity, method, pattern)


def _policy(
    args: argparse.Namespace, scheme: str, method: Suppression, sparsity: Sparsity | None
) -> Policy:
    from vllm_mindspore.quantization.ptq.policy import SCHEMES, policy

    scheme = SPARSE if scheme == COMPRESSED else scheme
    group_size = (args.group_size or 0) if scheme == "w4a16" else 0
    return policy(SCHEMES[scheme], method, group_size, sparsity if scheme == SPARSE else None)


def _make(args: argparse.Namespace, job: Job, calibration: Calibration) -> None:
    from tqdm import tqdm  # type: ignore[import-untyped]

    from vllm_mindspore.quantization.ptq import engine, output_folder

    described = calibration.describe()
    with closing(output_folder.open_work(job, args.output)) as work:
        amount = f"{described['samples']} samples, {described['tokens']} tokens"
        print(f"Calibration: {described['source']}, {amount}", flush=True)
        parts = job.parts()
        done = sum(work.has(part) for part in parts)
        if done:
            print(f"Going on after {done} of {len(parts)} parts", flush=True)
        with tqdm(total=len(parts), initial=done, desc="Quantizing", unit="layer") as bar:
            engine.run(job, work, lambda part: bar.update())
        evaluate, options = _evaluate(args, job, work.folder), _options(args)
        if _is_compressed(args):
            _compress(args, job, work, described, evaluate)
        else:
            output_folder.write(job, work, options, described, args.output, work.folder, evaluate)
    output_folder.remove_work(args.output)


def _data(args: argparse.Namespace) -> Data:
    from vllm_mindspore.quantization.ptq.evaluation import Data

    return Data(args.evaluate, args.perplexity, args.evaluate_questions)


def _evaluate(args: argparse.Namespace, job: Job, kept: Path) -> Evaluate:
    from vllm_mindspore.quantization.ptq import evaluation
    from vllm_mindspore.quantization.ptq.evaluation import Served

    data, options = _data(args), evaluation.engine_options(job)

    def measure(made: Path) -> Evaluation:
        models = {
            "float": Served(args.model, options),
            "quantized": Served(made, (*options, *_of_ranks(args))),
        }
        found = evaluation.measure(data, models, kept, _say)
        return compare_zeros.added(found, args, kept, measure_other) if args.compare else found

    def measure_other(which: str, other: argparse.Namespace) -> Evaluation:
        served = Served(other.output, (*options, *_of_ranks(other)), lambda: _finish(other))
        found = evaluation.measure(data, {which: served}, kept, _say)
        shutil.rmtree(other.output, ignore_errors=True)
        return found

    return measure


def _of_ranks(args: argparse.Namespace) -> tuple[str, ...]:
    return ("--tensor-parallel-size", str(_ranks(args))) if _is_compressed(args) else ()


def _say(text: str) -> None:
    print(text, flush=True)


def _compress(
    args: argparse.Namespace,
    job: Job,
    work: WorkFolder,
    calibration: dict[str, Any],
    evaluate: Evaluate,
) -> None:
    from tqdm import tqdm

    from vllm_mindspore.conversion import compressed_output

    with tqdm(total=compressed_output.parts(job), desc="Compressing", unit="part") as bar:

        def measure(made: Path) -> Evaluation:
            bar.close()
            return evaluate(made)

        compressed_output.write(
            *(job, work, _options(args), calibration, args.output, _ranks(args)),
            lambda part: bar.update(),
            measure,
        )


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """For the report: what was asked for, without places on this machine."""
    names = (
        *("scheme", "outlier_suppression", "skip", "layer_policy", "quantize_lm_head"),
        *("sparsity", "sparsity_method", "sparsity_pattern", "tensor_parallel_size"),
        *("group_size", "kv_cache_scheme", "writer"),
    )
    return {name: getattr(args, name) for name in names}


def _print_summary(output: Path) -> None:
    from vllm_mindspore.quantization.ptq.output_folder import PAGE, REPORT
    from vllm_mindspore.quantization.ptq.report import compared, measured

    found = json.loads((output / REPORT).read_text("utf-8"))
    sizes = found["sizes"]
    ratio = sizes["bytes_after"] / sizes["bytes_before"]
    print(f"{len(found['linears'])} linear layers quantized, {ratio:.0%} of the bytes")
    if found["compression"]:
        compression = found["compression"]
        share = f"{compression['ratio']:.1%} of the bytes of int8 weights"
        print(f"Compressed for {compression['ranks']} ranks: {share}")
    lossy = [entry for entry in found["linears"] if entry["output_sqnr_db"] is not None]
    for entry in sorted(lossy, key=lambda entry: entry["output_sqnr_db"])[:3]:
        print(f"  {entry['name']}: output {entry['output_sqnr_db']:.1f} dB")
    for name, values in found["evaluation"].items():
        (_, exact, quantized), *_ = measured({name: values})
        print(f"{name}: " + (f"float {exact}, quantized {quantized}" if values else exact))
    for model, *values in compared(found["evaluation"])[1:]:
        print(f"  {model}: {', '.join(values)}")
    for note in found["notes"]:
        print(f"note: {note}")
    print(f"Report: {output / PAGE}\nServe it: vllm-mindspore serve {output}")
