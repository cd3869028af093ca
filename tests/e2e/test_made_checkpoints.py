# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that `vllm-mindspore quantize` makes, served: what was written is what is computed,
and the trained model stays as good as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from vllm import LLM, SamplingParams

from tests.e2e.conftest import Checkpoint, Engine
from tests.e2e.test_correctness import options, prompt_logprobs, ragged_prompts
from tests.quantization.checkpoints import QuantizedReference
from tests.quantization.ptq.jobs import make, make_job
from vllm_mindspore.conversion import convert
from vllm_mindspore.evaluation import ceval
from vllm_mindspore.evaluation.perplexity import perplexity, read_documents, windows
from vllm_mindspore.model_executor.model_loader.quantization_files import read_description
from vllm_mindspore.quantization.description import (
    DYNAMIC,
    FLOAT,
    SPARSE,
    STATIC,
    WEIGHT_INT8,
    Tool,
)
from vllm_mindspore.quantization.ptq import calibration_data
from vllm_mindspore.quantization.ptq.calibration_data import Amount
from vllm_mindspore.quantization.ptq.policy import Suppression, policy
from vllm_mindspore.quantization.ptq.sparsity import Sparsity

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "tiny_model"
# Of float32 sums; where a code flips it is more, so this is a median.
EXACT = 1e-4
# What a good quantization may cost: share of right answers, and of perplexity.
POINTS, PERPLEXITY = 0.005, 0.01
# Nothing is promised for OS+: searched exponents give every channel the range that calibration saw,
# and the package's text is not of the world of the text that is measured.
OS_PLUS_PERPLEXITY = 0.03

pytestmark = pytest.mark.usefixtures("mindspore_runtime")


class WrittenReference(QuantizedReference):
    """transformers with the tensors of a made folder."""

    def __init__(self, source: Path, folder: Path, tool: Tool) -> None:
        stored: dict[str, torch.Tensor] = {}
        for file in folder.glob("*.safetensors"):
            stored |= load_file(file)
        description = read_description(folder)
        assert description is not None
        types = description.module_types()
        layers: dict[str, dict[str, Any]] = {}
        for name, tensor in stored.items():
            module, _, last = name.rpartition(".")
            if types[module] != FLOAT:
                values = tensor.float() if tensor.is_floating_point() else tensor
                layers.setdefault(module, {})[last] = values.numpy()
        for tensors in layers.values():
            if "beta" in tensors:
                shift = tensors["beta"] / tensors["input_scale"]
                tensors["input_offset"] = tensors["input_offset"].astype(np.float32) + shift
        super().__init__(source, torch.float32, types, layers, tool)
        for layer in self._layers:
            if layer.bias is not None:  # smoothed with the rows it belongs to
                layer.bias = torch.from_numpy(layer.tensors["bias"])
        state = self.model.state_dict()
        for name, tensor in stored.items():
            if types[name.rpartition(".")[0]] == FLOAT and name in state:
                state[name].copy_(tensor)


@pytest.mark.parametrize(
    ("name", "kind", "method", "tool", "head"),
    [
        ("qwen3", STATIC, Suppression.SMOOTH, Tool.GOLDEN_STICK, True),
        ("qwen2", STATIC, Suppression.SMOOTH, Tool.MODELSLIM, False),  # folded biases
        *(
            pytest.param(*case, marks=pytest.mark.full)
            for case in [
                ("qwen3", STATIC, Suppression.OS_PLUS, Tool.GOLDEN_STICK, False),
                ("qwen2", STATIC, Suppression.OS_PLUS, Tool.MODELSLIM, False),
                ("glm4", STATIC, Suppression.OSL, Tool.GOLDEN_STICK, False),
                ("llama-biases", DYNAMIC, Suppression.SMOOTH, Tool.GOLDEN_STICK, False),
                ("qwen3", DYNAMIC, Suppression.NONE, Tool.MODELSLIM, True),
            ]
        ),
    ],
)
def test_the_engine_computes_what_was_written(
    name: str,
    kind: str,
    method: Suppression,
    tool: Tool,
    head: bool,
    checkpoint: Checkpoint,
    engine: Engine,
    tmp_path: Path,
) -> None:
    source = checkpoint(name, torch.float32)
    job = make_job(source, kind, method, tool, head=head, samples=ragged_prompts(seed=3))
    make(job, tmp_path / "made")
    reference = WrittenReference(source, tmp_path / "made", tool)
    prompts = ragged_prompts()
    errors = []
    llm = engine(tmp_path / "made", **options("fp32"))
    for prompt, found in zip(prompts, prompt_logprobs(llm, prompts), strict=True):
        errors.append((found - reference.logprobs(prompt)[:-1]).abs().amax(-1))
    assert float(torch.cat(errors).median()) <= EXACT


def made_of_the_tiny_model(
    tiny_model: Path, folder: Path, kind: str, method: Suppression, tool: Tool, **others: Any
) -> Path:
    """With the text of the package, as the command does it."""
    tokenizer = calibration_data.load_tokenizer(tiny_model)
    samples = calibration_data.read(None, tokenizer, Amount()).samples
    make(make_job(tiny_model, kind, method, tool, samples=samples, **others), folder)
    return folder


def accuracy(llm: LLM, questions: int | None) -> float:
    exam = ceval.read_exam(EXAMPLE / "ceval", "val")
    exam = exam if questions is None else ceval.limit_exam(exam, questions)
    asked = [question for part in exam.values() for question in part]
    prompts = [ceval.completion_prompt(question, []) for question in asked]
    greedy = SamplingParams(temperature=0, max_tokens=8, stop=["\n"])
    answers = llm.generate(prompts, greedy, use_tqdm=False)
    letters = [ceval.parse_letter(answer.outputs[0].text) for answer in answers]
    return ceval.total(ceval.score(asked, letters)).accuracy


def measured_perplexity(llm: LLM, documents: int | None) -> float:
    texts = read_documents(EXAMPLE / "heldout.txt")[:documents]
    tokenizer = llm.get_tokenizer()
    cut = windows([tokenizer.encode(text, add_special_tokens=False) for text in texts], 500)
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in cut], params, use_tqdm=False)
    found = []
    for output, ids in zip(outputs, cut, strict=True):
        assert output.prompt_logprobs is not None
        steps = zip(output.prompt_logprobs[1:], ids[1:], strict=True)
        found.append([step[token].logprob for step, token in steps if step is not None])
    return perplexity(found).value


def test_the_trained_model_stays_as_good(tiny_model: Path, engine: Engine, tmp_path: Path) -> None:
    """As the documents' script quantizes it, and with an int8 head."""
    per_token = {"down_proj": policy(DYNAMIC, Suppression.NONE)}
    folder = made_of_the_tiny_model(
        *(tiny_model, tmp_path / "made", STATIC, Suppression.SMOOTH, Tool.GOLDEN_STICK),
        head=True,
        **per_token,
    )
    llm = engine(folder, skip_tokenizer_init=False)
    assert accuracy(llm, 120) >= 0.93  # float: 116 of 120
    exact = engine(tiny_model, skip_tokenizer_init=False)
    found, expected = measured_perplexity(llm, 60), measured_perplexity(exact, 60)
    assert found / expected - 1 <= PERPLEXITY


@pytest.mark.full
@pytest.mark.parametrize(
    ("kind", "method", "tool"),
    [
        (STATIC, Suppression.NONE, Tool.GOLDEN_STICK),
        (STATIC, Suppression.SMOOTH, Tool.GOLDEN_STICK),
        (STATIC, Suppression.OSL, Tool.GOLDEN_STICK),
        (STATIC, Suppression.OS_PLUS, Tool.GOLDEN_STICK),
        (STATIC, Suppression.SMOOTH, Tool.MODELSLIM),
        (DYNAMIC, Suppression.NONE, Tool.GOLDEN_STICK),
        (DYNAMIC, Suppression.SMOOTH, Tool.GOLDEN_STICK),
        (WEIGHT_INT8, Suppression.NONE, Tool.GOLDEN_STICK),
        (WEIGHT_INT8, Suppression.NONE, Tool.MODELSLIM),
    ],
)
def test_accuracy_over_the_whole_exam(
    kind: str, method: Suppression, tool: Tool, tiny_model: Path, engine: Engine, tmp_path: Path
) -> None:
    exact = engine(tiny_model, skip_tokenizer_init=False)
    folder = made_of_the_tiny_model(tiny_model, tmp_path / "made", kind, method, tool)
    llm = engine(folder, skip_tokenizer_init=False)
    assert accuracy(llm, None) >= accuracy(exact, None) - POINTS
    found, expected = measured_perplexity(llm, None), measured_perplexity(exact, None)
    assert np.isfinite(found)
    bound = OS_PLUS_PERPLEXITY if method is Suppression.OS_PLUS else PERPLEXITY
    assert found / expected - 1 <= bound


@pytest.mark.full
def test_the_recommended_share_of_zeros_over_the_whole_exam(
    tiny_model: Path, engine: Engine, tmp_path: Path
) -> None:
    """Compressed, beside dense W8A8; calibrated on texts like those of its training."""
    corpus = [sys.executable, "corpus.py", str(tmp_path / "corpus"), "--documents", "2000"]
    subprocess.run(corpus, cwd=EXAMPLE, check=True)
    tokenizer = calibration_data.load_tokenizer(tiny_model)
    text = tmp_path / "corpus" / "train.txt"
    samples = calibration_data.read(text, tokenizer, Amount(samples=256)).samples
    sparse = make_job(tiny_model, SPARSE, Suppression.NONE, sparsity=Sparsity(), samples=samples)
    make(sparse, tmp_path / "sparse")
    convert.compress(tmp_path / "sparse", tmp_path / "compressed", 1)
    dense = made_of_the_tiny_model(
        tiny_model, tmp_path / "dense", STATIC, Suppression.NONE, Tool.GOLDEN_STICK
    )
    found, expected = (
        engine(folder, skip_tokenizer_init=False) for folder in (tmp_path / "compressed", dense)
    )
    assert accuracy(found, None) >= accuracy(expected, None) - POINTS
    assert measured_perplexity(found, None) / measured_perplexity(expected, None) - 1 <= PERPLEXITY
