# SPDX-License-Identifier: Apache-2.0
"""Offline inference: python examples/offline_inference.py [folder or Hugging Face name]."""

import sys
from pathlib import Path

import vllm_mindspore  # noqa: F401 - before or after vllm
from vllm import LLM, SamplingParams

tiny_model = Path(__file__).parent / "tiny_model" / "model"
prompts = ["I am", "Today is", "Once upon a time"]
sampling_params = SamplingParams(temperature=0.0, top_p=0.95, max_tokens=32)

llm = LLM(model=sys.argv[1] if len(sys.argv) > 1 else str(tiny_model))
for output in llm.generate(prompts, sampling_params):
    print(f"Prompt: {output.prompt!r}, Generated text: {output.outputs[0].text!r}")
