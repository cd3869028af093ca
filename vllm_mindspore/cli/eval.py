# SPDX-License-Identifier: Apache-2.0
"""`vllm-mindspore eval`: exam accuracy or perplexity, through the engine or a running server."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm_mindspore.evaluation import ceval
    from vllm_mindspore.evaluation.engines import Engine

NAME = "eval"
HELP = "measure a model: four-choice exams in CEval's layout, or perplexity of a text file"

# Engine options that are handed to LLM(...) under the same names, only when given.
_ENGINE_OPTIONS: dict[str, type] = {
    "dtype": str,
    "quantization": str,
    "load-format": str,
    "max-model-len": int,
    "max-num-seqs": int,
    "max-num-batched-tokens": int,
    "block-size": int,
    "tensor-parallel-size": int,
    "gpu-memory-utilization": float,
    "kv-cache-memory-bytes": int,
    "seed": int,
}
_ENGINE_FLAGS = ("trust-remote-code", "enforce-eager")
_MAX_WINDOW = 2048


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this command."""
    parser.add_argument("model", nargs="?", help="name or path; optional with --base-url")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--ceval", type=Path, metavar="FOLDER", help="folder with dev/, val/, test/")
    what.add_argument("--perplexity", type=Path, metavar="FILE", help="text file in UTF-8")
    exam = parser.add_argument_group("exam")
    exam.add_argument("--split", choices=("dev", "val", "test"), default="val")
    exam.add_argument("--shots", type=int, default=0, help="solved examples from dev per question")
    exam.add_argument("--limit", type=int, help="at most this many questions, evenly by subject")
    exam.add_argument("--chat", action="store_true", help="ask through the chat template")
    exam.add_argument("--system-prompt", metavar="TEXT", help="first message of every chat")
    exam.add_argument("--max-tokens", type=int, default=8, help="tokens per answer (default 8)")
    text = parser.add_argument_group("perplexity")
    text.add_argument("--window", type=int, help=f"tokens per window (default up to {_MAX_WINDOW})")
    server = parser.add_argument_group("server")
    server.add_argument("--base-url", metavar="URL", help="measure this running server instead")
    server.add_argument("--concurrency", type=int, default=16, help="requests in flight")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the result as JSON")
    engine = parser.add_argument_group("engine (as in `serve`)")
    for name, kind in _ENGINE_OPTIONS.items():
        engine.add_argument(f"--{name}", type=kind)
    for name in _ENGINE_FLAGS:
        engine.add_argument(f"--{name}", action="store_true", default=None)


def run(args: argparse.Namespace) -> int:
    """Measure, print the report, write --output. Returns 0, or 2 after an error message."""
    from vllm_mindspore.evaluation.errors import EvaluationError

    try:
        check(args)
        result = _run_exam(args) if args.ceval is not None else _run_perplexity(args)
    except EvaluationError as error:
        print(f"vllm-mindspore eval: error: {error}", file=sys.stderr)
        return 2
    if args.output is not None:
        args.output.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return 0


def engine_options(args: argparse.Namespace) -> dict[str, Any]:
    """The engine options that were given, by their names in LLM(...)."""
    names = [name.replace("-", "_") for name in (*_ENGINE_OPTIONS, *_ENGINE_FLAGS)]
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def check(args: argparse.Namespace) -> None:
    """Refuse options that contradict each other.

    Raises:
        EvaluationError: no model, engine options for a server, chat options without --chat,
            numbers out of range, no folder for the output.
    """
    from vllm_mindspore.evaluation.errors import EvaluationError

    given = engine_options(args)
    if args.base_url is None and args.model is None:
        raise EvaluationError("MODEL is needed, unless --base-url names a running server")
    if args.base_url is not None and given:
        options = ", ".join("--" + name.replace("_", "-") for name in given)
        raise EvaluationError(
            f"{options}: with --base-url the server has its engine options already"
        )
    if args.system_prompt is not None and not args.chat:
        raise EvaluationError("--system-prompt needs --chat")
    for name in ("max_tokens", "concurrency"):
        if getattr(args, name) < 1:
            option = name.replace("_", "-")
            raise EvaluationError(f"--{option} must be at least 1, got {getattr(args, name)}")
    if args.window is not None and args.window < 2:
        raise EvaluationError(f"--window must be at least 2 tokens, got {args.window}")
    if args.output is not None and not args.output.absolute().parent.is_dir():
        raise EvaluationError(f"--output: there is no folder {args.output.absolute().parent}")


def _start_engine(args: argparse.Namespace) -> Engine:
    from vllm_mindspore.evaluation.engines import OfflineEngine, ServerEngine

    if args.base_url is not None:
        return ServerEngine(args.base_url, args.model, args.concurrency)
    return OfflineEngine(args.model, engine_options(args))


def _origin(args: argparse.Namespace, engine: Engine) -> dict[str, Any]:
    origin: dict[str, Any] = {"model": engine.model}
    if args.base_url is not None:
        return origin | {"base_url": args.base_url}
    return origin | {"engine_options": engine_options(args)}


def _run_exam(args: argparse.Namespace) -> dict[str, Any]:
    from vllm_mindspore.evaluation import ceval

    exam = ceval.read_exam(args.ceval, args.split)
    if args.limit is not None:
        exam = ceval.limit_exam(exam, args.limit)
    examples = ceval.read_examples(args.ceval, list(exam), args.shots)
    questions = [question for part in exam.values() for question in part]
    with closing(_start_engine(args)) as engine:
        texts = _ask(engine, args, questions, examples)
    letters = [ceval.parse_letter(text) for text in texts]
    scores = ceval.score(questions, letters)
    _print_exam(scores, letters.count(None))
    return {
        **_origin(args, engine),
        **{"task": "ceval", "split": args.split, "shots": args.shots, "chat": args.chat},
        **_score_json(ceval.total(scores)),
        "unanswered": letters.count(None),
        "subjects": {subject: _score_json(part) for subject, part in scores.items()},
        "answers": [
            {"subject": q.subject, "id": q.id, "answer": q.answer, "given": letter, "text": text}
            for q, letter, text in zip(questions, letters, texts, strict=True)
        ],
    }


def _ask(
    engine: Engine, args: argparse.Namespace, questions: list[ceval.Question], examples: ceval.Exam
) -> list[str]:
    from vllm_mindspore.evaluation import ceval

    if args.chat:
        asked = [ceval.conversation(q, examples[q.subject], args.system_prompt) for q in questions]
        return engine.chat(asked, args.max_tokens)
    prompts = [ceval.completion_prompt(q, examples[q.subject]) for q in questions]
    return engine.complete(prompts, args.max_tokens)


def _score_json(score: ceval.Score) -> dict[str, Any]:
    return {
        "questions": score.questions,
        "correct": score.correct,
        "accuracy": score.accuracy,
        "standard_error": score.standard_error,
    }


def _print_exam(scores: dict[str, ceval.Score], unanswered: int) -> None:
    from vllm_mindspore.evaluation import ceval

    width = max(len("subject"), *(len(subject) for subject in scores))
    print(f"{'subject':<{width}}  questions  correct  accuracy")
    for subject, score in (*scores.items(), ("total", ceval.total(scores))):
        accuracy = f"{100 * score.accuracy:6.2f} % +- {100 * score.standard_error:.2f}"
        print(f"{subject:<{width}}  {score.questions:9d}  {score.correct:7d}  {accuracy}")
    if unanswered:
        print(f"{unanswered} answers had no letter A to D and count as wrong")


def _run_perplexity(args: argparse.Namespace) -> dict[str, Any]:
    from vllm_mindspore.evaluation.perplexity import perplexity, read_documents, windows

    documents = read_documents(args.perplexity)
    with closing(_start_engine(args)) as engine:
        size = _window_size(args.window, engine.max_model_len)
        cut = windows(engine.tokenize(documents), size)
        measured = perplexity(engine.token_logprobs(cut))
    print(f"documents   {len(documents)}\nwindows     {len(cut)} of up to {size} tokens")
    print(f"tokens      {measured.tokens} scored")
    print(f"mean NLL    {measured.mean_nll:.5f} +- {measured.standard_error:.5f} nats per token")
    print(f"perplexity  {measured.value:.4f}")
    return {
        **_origin(args, engine),
        "task": "perplexity",
        "documents": len(documents),
        "window": size,
        "tokens": measured.tokens,
        "mean_nll": measured.mean_nll,
        "standard_error": measured.standard_error,
        "perplexity": measured.value,
    }


def _window_size(wanted: int | None, max_model_len: int) -> int:
    from vllm_mindspore.evaluation.errors import EvaluationError

    room = max_model_len - 1  # scoring generates one token
    if wanted is None:
        return min(_MAX_WINDOW, room)
    if wanted > room:
        raise EvaluationError(
            f"--window {wanted}: the model takes at most {room} tokens and one more"
        )
    return wanted
