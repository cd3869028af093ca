# SPDX-License-Identifier: Apache-2.0
"""The list of a projection that fused kernels take names how compressed weights are coded."""

from __future__ import annotations

import pytest
import torch

from vllm_mindspore import bridge
from vllm_mindspore.quantization.schemes.base import TILE_BITMAP, Kind, LinearParameters

pytestmark = pytest.mark.usefixtures("mindspore_runtime")


def test_compressed_weights_come_with_their_indexes() -> None:
    sizes = {"stream": 192, "index": 8, "scale": 5, "quant_bias": 5, "input_scale": 3, "offset": 3}
    made = {name: bridge.parameter(name, torch.ones(n)) for name, n in sizes.items()}
    stream, index, scale, quant_bias, input_scale, offset = made.values()
    found = LinearParameters(
        Kind.DIVIDE,
        3,
        (stream,),
        (),
        (scale,),
        (quant_bias,),
        input_scale,
        offset,
        indexes=(index,),
    )
    descriptor, *kernels = found.fused()
    assert descriptor.asnumpy().tolist() == [0, 3, 0, 0, TILE_BITMAP]
    assert kernels == [stream, index, scale, quant_bias, input_scale, offset]
