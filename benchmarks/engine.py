# SPDX-License-Identifier: Apache-2.0
"""Speed of the whole engine on the Qwen3-0.6B shape: bf16, dummy weights.

    python -m benchmarks.engine [--threads 2] [--runs 5] [--decode BATCH]

Prints decode at batch 1 and 8, prefill of 512 tokens, the framework's
share with all kernels switched off, the time until the engine is ready, and the bandwidth at
which decode reads its weights beside what the machine gives a plain read.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.shapes import QWEN3_0_6B, decode_weight_bytes, write_shape

if TYPE_CHECKING:
    from vllm import LLM

    from vllm_mindspore.device.kernel_library import KernelLibrary

# Of this model's graphs.
CUSTOM_KERNELS = ("vmo_embedding", "vmo_decoder_layers", "vmo_lm_head")
PROMPT_TOKENS, NEW_TOKENS, PREFILL_TOKENS = 32, 64, 512


@dataclass(frozen=True)
class Row:
    """One measured quantity."""

    name: str
    median: float
    lowest: float
    unit: str
    remark: str = ""

    def markdown(self) -> str:
        """A table row."""
        return (
            f"| {self.name} | {self.median:.1f} | {self.lowest:.1f} | {self.unit} | {self.remark} |"
        )


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--decode", type=int, metavar="BATCH", help="only decode at this batch")
    args = parser.parse_args()
    # One process, so that the kernels can be switched off from here.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_MS_NUM_THREADS"] = str(args.threads)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    with tempfile.TemporaryDirectory() as folder:
        rows, machine = measure(write_shape(Path(folder), QWEN3_0_6B), args.runs, args.decode)
    print(report(rows, machine))


def measure(folder: Path, runs: int, only_batch: int | None) -> tuple[list[Row], str]:
    """The rows, and a line on the machine."""
    start = time.perf_counter()
    llm = start_engine(folder)
    ready = time.perf_counter() - start
    from vllm_mindspore.device.kernel_library import kernel_library

    library = kernel_library()
    bandwidth = library.read_bandwidth(1 << 30)
    if only_batch:
        rows = [decode_row(llm, only_batch, runs, bandwidth)]
    else:
        rows = [
            Row("ready", ready, ready, "s", "import of vLLM and MindSpore, compilation, warm-up"),
            *(decode_row(llm, batch, runs, bandwidth) for batch in (1, 8)),
            prefill_row(llm, runs),
            outside_row(llm, library, runs),
            *rows_without_kernels(llm, library, runs),
        ]
    machine = f"{cpu_name()}, {library.num_threads()} threads, {library.isa_name()} kernels"
    return rows, f"{machine}, read bandwidth {bandwidth / 1e9:.1f} GB/s"


def outside_row(llm: LLM, library: KernelLibrary, runs: int) -> Row:
    """The same decode step as in the first row, less what its kernels take.

    More than without kernels: behind one that runs for long the framework starts cold.
    """

    def outside(new_tokens: int) -> float:
        library.reset_stats()
        seconds = generate(llm, 1, PROMPT_TOKENS, new_tokens)
        return seconds - sum(library.op_stats(name).seconds for name in names)

    names = (*library.registered_ops(), *CUSTOM_KERNELS)
    library.enable_stats(True)
    try:
        median, lowest = repeat(
            runs, lambda: (outside(1 + NEW_TOKENS) - outside(1)) * 1e3 / NEW_TOKENS
        )
    finally:
        library.enable_stats(False)
    return Row(
        "outside the kernels, batch 1", median, lowest, "ms", "of a decode step that computes"
    )


def rows_without_kernels(llm: LLM, library: KernelLibrary, runs: int) -> list[Row]:
    """What is left of a decode step when every kernel returns at once."""
    library.set_noop(True)
    try:
        return [overhead_row(llm, runs), graph_row(llm, runs)]
    finally:
        library.set_noop(False)


def start_engine(folder: Path, **options: Any) -> LLM:
    """The engine without tokenizer or prefix cache, with dummy weights unless told otherwise."""
    import vllm_mindspore  # noqa: F401, I001 - first, as users write it
    from vllm import LLM

    defaults: dict[str, Any] = {
        "load_format": "dummy",
        "dtype": "bfloat16",
        "max_model_len": 1024,
        "max_num_batched_tokens": 1024,
        "max_num_seqs": 32,
    }
    return LLM(
        str(folder),
        skip_tokenizer_init=True,
        enable_prefix_caching=False,
        **(defaults | options),
    )


def generate(llm: LLM, batch: int, prompt: int, new: int) -> float:
    """Seconds for `batch` requests of `prompt` tokens to give `new` tokens each."""
    from vllm import SamplingParams

    params = SamplingParams(temperature=0, max_tokens=new, ignore_eos=True, detokenize=False)
    inputs: list[Any] = [
        {"prompt_token_ids": [(7 * i + b) % 1000 + 3 for i in range(prompt)]} for b in range(batch)
    ]
    start = time.perf_counter()
    llm.generate(inputs, params, use_tqdm=False)
    return time.perf_counter() - start


def repeat(runs: int, measured: Callable[[], float]) -> tuple[float, float]:
    """Median and minimum after one run that is not counted."""
    measured()
    values = [measured() for _ in range(runs)]
    return statistics.median(values), min(values)


def step_ms(llm: LLM, batch: int) -> float:
    """Milliseconds per decode step: the difference between long and short requests."""
    short = generate(llm, batch, PROMPT_TOKENS, 1)
    long = generate(llm, batch, PROMPT_TOKENS, 1 + NEW_TOKENS)
    return (long - short) * 1e3 / NEW_TOKENS


def decode_row(llm: LLM, batch: int, runs: int, bandwidth: float) -> Row:
    """A decode step, with the bandwidth at which it reads the weights."""
    median, lowest = repeat(runs, lambda: step_ms(llm, batch))
    reached = decode_weight_bytes(QWEN3_0_6B) / median * 1e3
    remark = f"{batch * 1e3 / median:.1f} tokens/s; weights at {reached / 1e9:.1f} GB/s, "
    remark += f"{reached / bandwidth:.2f} of a plain read"
    return Row(f"decode step, batch {batch}", median, lowest, "ms", remark)


def prefill_row(llm: LLM, runs: int) -> Row:
    """One prompt until its first token."""
    median, lowest = repeat(runs, lambda: generate(llm, 1, PREFILL_TOKENS, 1) * 1e3)
    remark = f"{PREFILL_TOKENS * 1e3 / median:.0f} tokens/s"
    return Row(f"prefill, {PREFILL_TOKENS} tokens", median, lowest, "ms", remark)


def overhead_row(llm: LLM, runs: int) -> Row:
    """A decode step in which every kernel returns at once: all that is not computing."""
    median, lowest = repeat(runs, lambda: step_ms(llm, 1))
    return Row(
        "decode step without kernels", median, lowest, "ms", "scheduler, inputs, graph, sampling"
    )


def graph_row(llm: LLM, runs: int) -> Row:
    """The two graph calls of a decode step alone, kernels switched off."""
    worker = llm.llm_engine.model_executor.driver_worker.worker

    def steps() -> float:
        start = time.perf_counter()
        for _ in range(NEW_TOKENS):
            worker._dummy_step(1, 1, 1)
        return (time.perf_counter() - start) * 1e3 / NEW_TOKENS

    median, lowest = repeat(runs, steps)
    return Row("graph calls without kernels", median, lowest, "ms", "decoder and logits graphs")


def cpu_name() -> str:
    """The processor's name."""
    text = Path("/proc/cpuinfo").read_text()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1) if found else "unknown processor"


def report(rows: list[Row], machine: str) -> str:
    """The rows as a Markdown table."""
    lines = [f"Machine: {machine}.", "", "| | median | lowest | | |", "|---|---|---|---|---|"]
    return "\n".join(lines + [row.markdown() for row in rows])


if __name__ == "__main__":
    main()
