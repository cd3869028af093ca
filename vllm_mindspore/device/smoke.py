# SPDX-License-Identifier: Apache-2.0
"""`python -m vllm_mindspore.device.smoke`: one operator of our kernel library, through MindSpore.

For `vllm-mindspore doctor`, which must not import MindSpore itself. Prints one line of JSON.
"""

from __future__ import annotations

import json
import sys

import mindspore as ms
import numpy as np

from vllm_mindspore.device.runtime import start_runtime
from vllm_mindspore.device.threads import threads_per_rank

_EPSILON = 1e-6
# fp32 sums of 64 squares: far above rounding (64 * 2**-24), far below a wrong answer.
_TOLERANCE = 1e-4


def run() -> dict[str, object]:
    """RMS normalisation of [2, 64] fp32, which MindSpore itself has no CPU kernel for.

    Returns:
        The MindSpore version, the instruction set in use and the largest error against numpy.

    Raises:
        RuntimeError: the kernel library is unusable or the result is wrong.
    """
    library = start_runtime(threads_per_rank(1))
    hidden = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    weight = np.linspace(0.5, 1.5, 64, dtype=np.float32)
    normed, _ = ms.ops.rms_norm(ms.Tensor(hidden), ms.Tensor(weight), _EPSILON)
    mean_square = np.mean(hidden * hidden, axis=-1, keepdims=True)
    expected = hidden / np.sqrt(mean_square + _EPSILON) * weight
    error = float(np.abs(normed.asnumpy() - expected).max())
    if not error < _TOLERANCE:
        raise RuntimeError(f"RmsNorm differs from numpy by {error:g}, allowed {_TOLERANCE:g}")
    return {"mindspore": ms.__version__, "isa": library.isa_name(), "error": error}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run()) + "\n")
