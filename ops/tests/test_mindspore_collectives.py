# SPDX-License-Identifier: Apache-2.0
"""The builtin primitives AllReduce and AllGather between two processes that run MindSpore."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ops.tests import ranks
from ops.tests.conftest import _prime_numpy
from ops.tests.native import native_path
from vllm_mindspore.device.rank_group import RankGroup

WIDTH, COUNT = 6, 2


def own(index: int, rows: int) -> np.ndarray:
    return np.random.default_rng(index).standard_normal((rows, WIDTH)).astype(np.float32)


def body(group: RankGroup) -> Any:
    """Results of eager calls and of graphs, and the shapes that graphs infer."""
    os.environ["MS_OP_PLUGIN_PATH"] = str(native_path())
    import mindspore as ms

    from ops.tests.mindspore_ranks import ReduceAndGather, Reduced

    ms.set_device("CPU")
    _prime_numpy()
    found: dict[str, Any] = {}
    for mode in (ms.PYNATIVE_MODE, ms.GRAPH_MODE):
        ms.set_context(mode=mode, jit_config={"jit_level": "O0"})
        for rows in (1, 5):
            x = ms.Tensor(own(group.index, rows))
            reduced, gathered = ReduceAndGather(COUNT)(x)
            found[f"{mode} {rows}"] = reduced.asnumpy(), gathered.asnumpy()
    dynamic = Reduced()
    dynamic.set_inputs(ms.Tensor(shape=[None, WIDTH], dtype=ms.bfloat16))
    for rows in (1, 5):
        y = dynamic(ms.Tensor(own(group.index, rows), ms.bfloat16))
        found[f"dynamic {rows}"] = y.astype(ms.float32).asnumpy()
    return found


def test_primitives_reach_the_other_rank() -> None:
    found = ranks.run(COUNT, body, "spawn")
    for of_rank in found:
        assert isinstance(of_rank, dict), of_rank
        for mode in (0, 1):
            for rows in (1, 5):
                reduced, gathered = of_rank[f"{mode} {rows}"]
                parts = [own(index, rows) for index in range(COUNT)]
                np.testing.assert_array_equal(reduced, parts[0] + parts[1])
                np.testing.assert_array_equal(gathered, np.concatenate(parts))
        for rows in (1, 5):
            exact = sum(own(index, rows) for index in range(COUNT))
            y = of_rank[f"dynamic {rows}"]
            assert y.shape == (rows, WIDTH)
            np.testing.assert_allclose(y, exact, rtol=2.0**-6, atol=2.0**-6)
            np.testing.assert_array_equal(y, found[0][f"dynamic {rows}"])
