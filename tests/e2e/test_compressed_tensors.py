# SPDX-License-Identifier: Apache-2.0
"""int8 checkpoints of llm-compressor against transformers with the arithmetic of the primitives;
how close they have to be is said in `test_quantized`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from compressed_tensors.quantization import QuantizationConfig

from tests.e2e.conftest import Checkpoint, Engine
from tests.e2e.test_correctness import options, prompt_logprobs, ragged_prompts
from tests.e2e.test_quantized import check_logprobs
from tests.e2e.tolerance import NOISE_RATIO, rms
from tests.quantization.compressed import DYNAMIC, STATIC, ZERO_POINT, Compressed, config

# Zero points and biases, patterns before classes, layers that are float.
MIXED = config(
    [([r"re:.*self_attn\..*", r"re:.*\.(gate|up)_proj$"], ZERO_POINT), (["Linear"], DYNAMIC)],
    ignore=["lm_head", r"re:model\.layers\.1\..*"],
)
CASES = [
    ("qwen2", MIXED),
    pytest.param("llama", config([(["Linear"], DYNAMIC)], []), marks=pytest.mark.full),  # head too
    pytest.param("glm", config([(["Linear"], STATIC)]), marks=pytest.mark.full),
    pytest.param("llama-biases", MIXED, marks=pytest.mark.full),
]


@pytest.mark.parametrize(("name", "quantization"), CASES)
def test_logprobs_in_float32(
    name: str,
    quantization: QuantizationConfig,
    checkpoint: Checkpoint,
    engine: Engine,
    tmp_path: Path,
) -> None:
    folder = checkpoint(name, torch.float32)
    compressed = Compressed(folder, quantization, ragged_prompts(seed=3))
    written = compressed.write(tmp_path / "compressed")
    check_logprobs(engine(written, **options("fp32")), compressed.reference(torch.float32))


@pytest.mark.parametrize("fused", ["1", pytest.param("0", marks=pytest.mark.full)])
def test_logprobs_in_bfloat16(
    fused: str,
    checkpoint: Checkpoint,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Scales are bfloat16, too; named by --quantization. As far from float32 as transformers, also
    with the chain of builtin primitives, which is what an NPU runs."""
    monkeypatch.setenv("VLLM_MS_FUSED_KERNELS", fused)
    folder = checkpoint("qwen3", torch.float32)
    quantization = config([(["Linear"], STATIC)])
    compressed = Compressed(folder, quantization, ragged_prompts(seed=3), torch.bfloat16)
    written = compressed.write(tmp_path / "compressed")
    exact, rounded = compressed.reference(torch.float32), compressed.reference(torch.bfloat16)
    prompts = ragged_prompts()
    llm = engine(written, **options("bf16"), quantization="compressed-tensors")
    ours, theirs = [], []
    for prompt, found in zip(prompts, prompt_logprobs(llm, prompts), strict=True):
        expected = exact.logprobs(prompt)[:-1]
        ours.append((found - expected).flatten())
        theirs.append((rounded.logprobs(prompt)[:-1] - expected).flatten())
    assert rms(torch.cat(ours)) <= NOISE_RATIO * rms(torch.cat(theirs))
