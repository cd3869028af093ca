# SPDX-License-Identifier: Apache-2.0
"""Engines of compressed folders give the bits of the W8A8S folder they were made of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from vllm import LLM, SamplingParams

from tests.conftest import ROOT, RunPython
from tests.conversion.folders import random_folder
from tests.e2e.conftest import Engine
from tests.quantization.flat_layout import flat
from vllm_mindspore.conversion.convert import compress
from vllm_mindspore.quantization.description import Tool

full = pytest.mark.full
QWEN2: dict[str, Any] = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
# One tensor for gate and up. (vLLM refuses float16 for glm4.)
GLM: dict[str, Any] = {
    "model_type": "glm",
    "architectures": ["GlmForCausalLM"],
    "pad_token_id": 0,
}
# More than one tile in either direction, and tiles that are not full.
LARGER: dict[str, Any] = {"hidden_size": 288, "intermediate_size": 576}
VARIANTS: dict[str, dict[str, Any]] = {
    "qwen3": {**LARGER, "head": True, "floats": ("1.mlp.gate_proj", "1.mlp.up_proj")},
    "qwen2": {**LARGER, **QWEN2, "tie_word_embeddings": True},
    "folded biases": {**QWEN2, "tool": Tool.MODELSLIM},
    "glm": GLM,
}
# In a process of its own, as users write it: ranks are processes that are forked.
RANKS = """
import json, sys
sys.path.insert(0, {root!r})
import vllm_mindspore
from pathlib import Path
from vllm import LLM
from tests.e2e.test_compressed_weights import ask
llm = LLM({folder!r}, dtype="float16", tensor_parallel_size={count}, max_model_len=64,
          skip_tokenizer_init=True, max_num_batched_tokens=64, kv_cache_memory_bytes=1 << 24)
Path({to!r}).write_text(json.dumps(ask(llm)))
"""
PROMPTS = [[1, 5, 9, 77, 3], [4] * 40, [9, 8, 7], [50, 51, 52, 53, 54, 55, 56]]


def ask(llm: LLM) -> list[tuple[list[int], list[float]]]:
    """Greedy tokens, and log probabilities of prompt and answer."""
    parameters = SamplingParams(
        temperature=0,
        max_tokens=12,
        ignore_eos=True,
        logprobs=0,
        prompt_logprobs=0,
        detokenize=False,
    )
    prompts: Any = [{"prompt_token_ids": prompt} for prompt in PROMPTS]
    found = []
    for request in llm.generate(prompts, parameters, use_tqdm=False):
        answer = request.outputs[0]
        scored = [*(request.prompt_logprobs or [])[1:], *(answer.logprobs or [])]
        values = [entry.logprob for token in scored if token for entry in token.values()]
        found.append((list(answer.token_ids), values))
    return found


@pytest.mark.parametrize(
    "variant", ["qwen3", *(pytest.param(name, marks=full) for name in list(VARIANTS)[1:])]
)
def test_the_bits_of_the_uncompressed_folder(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    """With the documents' flags and without any, in either layout, computed as it is and decoded
    at the load."""
    source = random_folder(tmp_path / "whole", **VARIANTS[variant])
    compress(source, tmp_path / "made", 1)
    small = {"max_model_len": 64, "max_num_batched_tokens": 64}
    expected = ask(engine(source, dtype="float16", **small))
    assert all(len(tokens) == 12 and values for tokens, values in expected)
    assert len({value for _, values in expected for value in values}) > 40
    assert ask(engine(tmp_path / "made", **small)) == expected
    flat(Path(shutil.copytree(tmp_path / "made", tmp_path / "flat")))
    assert ask(engine(tmp_path / "flat", **small)) == expected
    flags = {"quantization": "golden-stick", "load_format": "sparse_quant"}
    monkeypatch.setenv("VLLM_MS_SPARSE_DECODE", "1")
    assert ask(engine(tmp_path / "made", **small, **flags)) == expected


@full
def test_the_chain_of_primitives(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QuantLinearSparse, as an NPU runs it, within rounding of the fused kernels."""
    source = random_folder(tmp_path / "whole", **LARGER)
    compress(source, tmp_path / "made", 1)
    small = {"max_model_len": 64, "max_num_batched_tokens": 64, "max_num_seqs": 4}
    fused = ask(engine(tmp_path / "made", **small))
    monkeypatch.setenv("VLLM_MS_FUSED_KERNELS", "0")
    chain = ask(engine(tmp_path / "made", **small, seed=1))
    for (_, expected), (_, found) in zip(fused, chain, strict=True):
        differences = torch.tensor(expected[:3]) - torch.tensor(found[:3])
        assert differences.abs().max() < 0.1


@full
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("variant", ["qwen3", "qwen2", "glm"])
def test_ranks_give_the_bits_of_ranks_that_divide_the_uncompressed_folder(
    tmp_path: Path, run_python: RunPython, variant: str, count: int
) -> None:
    source = random_folder(tmp_path / "whole", **VARIANTS[variant])
    compress(source, tmp_path / "made", count)
    found = []
    for folder in (source, tmp_path / "made"):
        answer, script = tmp_path / "answer", tmp_path / "script.py"
        script.write_text(
            RANKS.format(root=str(ROOT), folder=str(folder), count=count, to=str(answer))
        )
        run_python(script, env={"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}, timeout=500)
        found.append(json.loads(answer.read_text()))
    assert found[0] == found[1]
    assert len({value for _, values in found[0] for value in values}) > 40
