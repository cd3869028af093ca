# SPDX-License-Identifier: Apache-2.0
"""One engine as a child process: reads requests as JSON lines, answers with the seconds each took.

Run by path in either environment, so it uses the standard library and vLLM alone.

    python engine_child.py FOLDER OPTIONS_JSON

A request is {"batch": B, "prompt": P, "new": N}: B prompts of P tokens, N new tokens each. The
first answer, {"seconds": S}, comes when the engine is ready.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm import LLM


def generate(llm: LLM, batch: int, prompt: int, new: int) -> float:
    """Seconds for `batch` requests of `prompt` tokens to give `new` tokens each."""
    from vllm import SamplingParams

    params = SamplingParams(temperature=0, max_tokens=new, ignore_eos=True, detokenize=False)
    inputs: list[Any] = [
        {"prompt_token_ids": [(7 * i + b) % 1000 + 3 for i in range(prompt)]} for b in range(batch)
    ]
    start = time.perf_counter()
    outputs = llm.generate(inputs, params, use_tqdm=False)
    seconds = time.perf_counter() - start
    counts = {len(output.outputs[0].token_ids) for output in outputs}
    if len(outputs) != batch or counts != {new}:
        raise RuntimeError(f"expected {batch} x {new} tokens, found {len(outputs)} x {counts}")
    return seconds


def main() -> None:
    """Serves requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not come between the answers
    from vllm import LLM

    start = time.perf_counter()
    llm = LLM(sys.argv[1], **json.loads(sys.argv[2]))
    print(json.dumps({"seconds": time.perf_counter() - start}), file=answers)
    for line in sys.stdin:
        print(json.dumps({"seconds": generate(llm, **json.loads(line))}), file=answers)


if __name__ == "__main__":
    main()
