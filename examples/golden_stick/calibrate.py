# SPDX-License-Identifier: Apache-2.0
"""Lets Golden Stick itself quantize a model as the documents' script does: W8A8 with SmoothQuant,
down_proj per token. Runs in its own environment (setup.sh); vllm-mindspore serves the result.

    build/golden_stick/venv/bin/python examples/golden_stick/calibrate.py MODEL OUTPUT \
        --text FILE [--logits FILE]
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from pathlib import Path

import mindspore as ms
import numpy as np
from datasets import Dataset
from mindspore import Tensor
from mindspore import dtype as msdtype
from mindspore_gs.common import BackendTarget
from mindspore_gs.ptq import (
    OutliersSuppressionType,
    PrecisionRecovery,
    PTQConfig,
    PTQMode,
    QuantGranularity,
)
from mindspore_gs.ptq.plugins.mindone_plugin import MindOneModelHubPlugin
from tokenizers import Tokenizer
from twin import Qwen3Twin

TOKENS = 512
SEPARATOR = "<|endoftext|>"
# Of sums in float32 in another order, through all layers.
RELATIVE = 1e-4


def main() -> None:
    """Checks the twin, calibrates, saves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--text", type=Path, required=True, help="documents for calibration")
    parser.add_argument("--samples", type=int, default=64, help="of the text, at most")
    parser.add_argument("--logits", type=Path, help="what reference.py wrote, to check the twin")
    args = parser.parse_args()
    ms.set_context(mode=ms.PYNATIVE_MODE)
    ms.set_device("CPU")
    _ = Tensor(np.ones(2, np.float32)) + 1  # see README.md
    MindOneModelHubPlugin.load()  # without it nothing is quantized, and nothing says so
    model = Qwen3Twin(args.model)
    if args.logits:
        check(model, args.logits)
    samples = read_samples(args.text, args.model, args.samples)
    print(f"calibration: {len(samples)} samples, {sum(map(len, samples))} tokens", flush=True)
    config, policies = configuration()
    model.calibrate(config, policies, Dataset.from_dict({"input_ids": samples}))
    model.save_quantized(str(args.output))
    print(f"Serve it: vllm-mindspore serve {args.output} --quantization golden-stick")


def check(model: Qwen3Twin, file: Path) -> None:
    """Compares the twin with transformers. Exits if they differ."""
    with np.load(file) as stored:
        for ids, expected in zip(stored["ids"], stored["logits"], strict=True):
            found = model.forward({"input_ids": ids}).asnumpy()
            error = np.abs(found - expected).max() / np.abs(expected).max()
            print(f"logits of {len(ids)} tokens: relative error {error:.1e}", flush=True)
            if not error < RELATIVE:
                raise SystemExit("the twin computes something else than transformers")


def read_samples(text: Path, model: Path, most: int) -> list[list[int]]:
    """Documents as token ids, cut and spread as `vllm-mindspore quantize --calibration` does."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    documents: list[list[str]] = [[]]
    for line in text.read_text("utf-8").split("\n"):
        if line.strip() == SEPARATOR:
            documents.append([])
        else:
            documents[-1].append(line)
    texts = ["\n".join(lines).strip("\n") for lines in documents]
    encoded = [tokenizer.encode(text).ids for text in texts if text.strip()]
    windows = [ids[at : at + TOKENS] for ids in encoded for at in range(0, len(ids), TOKENS)]
    usable = [ids for ids in windows if len(ids) > 1]
    count = min(most, len(usable))
    return [usable[at] for at in np.linspace(0, len(usable) - 1, count).round().astype(int)]


def configuration() -> tuple[PTQConfig, OrderedDict[str, PTQConfig]]:
    """That of the documents' script; down_proj was called w2 there."""
    cfg = PTQConfig(
        mode=PTQMode.QUANTIZE,
        backend=BackendTarget.ASCEND,
        weight_quant_dtype=msdtype.int8,
        act_quant_dtype=msdtype.int8,
        outliers_suppression=OutliersSuppressionType.SMOOTH,
        opname_blacklist=["lm_head"],
    )
    w2_config = PTQConfig(
        mode=PTQMode.QUANTIZE,
        backend=BackendTarget.ASCEND,
        weight_quant_dtype=msdtype.int8,
        act_quant_dtype=msdtype.int8,
        outliers_suppression=OutliersSuppressionType.NONE,
        precision_recovery=PrecisionRecovery.NONE,
        act_quant_granularity=QuantGranularity.PER_TOKEN,
        weight_quant_granularity=QuantGranularity.PER_CHANNEL,
    )
    return cfg, OrderedDict({r".*\.down_proj.*": w2_config})


if __name__ == "__main__":
    main()
