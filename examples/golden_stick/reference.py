# SPDX-License-Identifier: Apache-2.0
"""Logits of transformers in float32, for calibrate.py to compare its twin with. Runs where
vllm-mindspore is installed.

    python examples/golden_stick/reference.py MODEL FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

SEQUENCES, TOKENS = 3, 70


def main(model_folder: Path, file: Path) -> None:
    """Random sequences and their logits, as numpy's file of arrays."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    shape = (SEQUENCES, TOKENS)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, shape)
    with torch.no_grad():
        logits = model(torch.from_numpy(ids)).logits
    np.savez(file, ids=ids, logits=logits.numpy())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
