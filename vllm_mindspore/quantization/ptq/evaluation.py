# SPDX-License-Identifier: Apache-2.0
"""What quantizing costs in quality: exam accuracy and perplexity of the float and the made model.

Each is one `vllm-mindspore eval` in its own process; results are kept for work that goes on after
an interruption.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vllm_mindspore.evaluation import ceval
from vllm_mindspore.evaluation.perplexity import read_documents
from vllm_mindspore.quantization.description import HALF_ONLY
from vllm_mindspore.quantization.ptq import tensor_files
from vllm_mindspore.quantization.ptq.job import Job
from vllm_mindspore.quantization.ptq.report import ACCURACY, NOT_MEASURED, PERPLEXITY, Evaluation

_SPLIT = "val"
_COMMAND = (sys.executable, "-m", "vllm_mindspore.cli.main", "eval")
_SHOWN = 3000  # characters of what a failed process said


@dataclass(frozen=True)
class Data:
    """What is measured with.

    Attributes:
        exam: a folder in CEval's layout, whose split `val` is asked; None for no exam.
        text: documents for perplexity; None for none.
        questions: how many of the exam, evenly by subject; None for all.
    """

    exam: Path | None = None
    text: Path | None = None
    questions: int | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be read."""
        if self.exam is not None:
            exam = ceval.read_exam(self.exam, _SPLIT)
            if self.questions is not None:
                ceval.limit_exam(exam, self.questions)
        elif self.questions is not None:
            raise ValueError(f"--evaluate-questions {self.questions} needs --evaluate CEVAL_DIR")
        if self.text is not None:
            read_documents(self.text)

    def measures(self) -> dict[str, tuple[str, ...]]:
        """Name -> arguments of `vllm-mindspore eval`."""
        found: dict[str, tuple[str, ...]] = {}
        if self.exam is not None:
            limit = () if self.questions is None else ("--limit", str(self.questions))
            found[ACCURACY] = ("--ceval", str(self.exam), "--split", _SPLIT, *limit)
        if self.text is not None:
            found[PERPLEXITY] = ("--perplexity", str(self.text))
        return found

    def digest(self) -> str:
        """Of the contents of all files."""
        files = sorted((self.exam / _SPLIT).iterdir()) if self.exam is not None else []
        files += [self.text] if self.text is not None else []
        found = hashlib.sha256(str(self.questions).encode())
        for file in files:
            found.update(file.read_bytes())
        return found.hexdigest()


@dataclass(frozen=True)
class Served:
    """A checkpoint and the options of the engine that serves it; `make` makes the folder, where it
    is not there when it is needed."""

    folder: Path
    options: Sequence[str] = ()
    make: Callable[[], None] | None = None


def engine_options(job: Job) -> tuple[str, ...]:
    """With which both models are served: what is made may not be computed in float32."""
    half = job.int8_cache or any(policy.kind in HALF_ONLY for policy in job.policies.values())
    return ("--dtype", "bfloat16") if half and job.checkpoint.dtype == torch.float32 else ()


def measure(
    data: Data,
    models: Mapping[str, Served],
    kept: Path,
    say: Callable[[str], None] = lambda text: None,
) -> Evaluation:
    """That of `models`, "float" and "quantized"; `kept` is the folder for results. `say` is told
    what begins.

    Raises ValueError where a process fails, with what it said.
    """
    found = dict(NOT_MEASURED)
    for name, asked in data.measures().items():
        values = {}
        for which, served in models.items():
            file = kept / f"{name}-{which}.json"
            values[which] = _result(served, asked, data.digest(), file, say)[name]
        found[name] = values
    return found


def _result(
    served: Served, asked: Sequence[str], digest: str, file: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """What `vllm-mindspore eval` with these arguments gives, or gave before."""
    words = [str(served.folder), *asked, *served.options]
    made_from = {"arguments": list(words), "data": digest}
    if file.exists():
        kept: dict[str, Any] = json.loads(file.read_bytes())
        if kept["made_from"] == made_from:
            return kept
    if served.make is not None and not served.folder.exists():
        served.make()
    output = file.with_suffix(".part")
    say(f"Measuring: vllm-mindspore eval {' '.join(words)}")
    command = [*_COMMAND, *words, "--output", str(output)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise ValueError(
            f"{done.stdout[-_SHOWN:]}\nvllm-mindspore eval {' '.join(words)}: exit code "
            f"{done.returncode}; what is quantized is kept, and the same command goes on"
        )
    result: dict[str, Any] = json.loads(output.read_bytes())
    output.unlink()
    result.pop("answers", None)
    tensor_files.write_json(file, {**result, "made_from": made_from})
    return result
