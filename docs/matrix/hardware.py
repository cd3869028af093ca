# SPDX-License-Identifier: Apache-2.0
"""Machines, tested or not."""

from __future__ import annotations

from docs.matrix.rows import NotRun, Tested

TESTED = (
    Tested(
        "x86-64 with AVX2, AVX-512 or AVX-512-BF16",
        "every kernel tested on each of them",
        (
            "ops/tests/test_matmul.py::test_every_inner_tail",
            "ops/tests/test_isa.py::test_environment_forces_a_level",
        ),
    ),
    Tested(
        "x86-64 with AMX",
        "every kernel tested on CPUs that have it, and with the tile instructions emulated on "
        "those with AVX-512-BF16 that do not",
        (
            "ops/tests/test_matmul.py::test_every_inner_tail",
            "ops/tests/test_amx_emulation.py::test_kernels_on_emulated_tiles",
        ),
    ),
    Tested(
        "other x86-64",
        "portable path, tested by forcing it",
        ("ops/tests/test_attention.py::test_every_head_width",),
    ),
)
NOT_RUN = (
    NotRun("aarch64", "portable path; only compiled"),
    NotRun(
        "Ascend 300I Duo, 800I A2",
        "not run. `VLLM_MS_DEVICE=ascend` chooses it: the primitive chain, HCCL between ranks "
        "([what of it runs on a CPU](architecture.md#ranks-on-npus)). W8A8SC in an NPU's "
        "coding is loaded for 300I Duo and its graph exported with MindSpore's inference "
        "([test_npu_coding.py](../tests/model_executor/layers/test_npu_coding.py)), our coding is "
        "decoded on request",
    ),
)
