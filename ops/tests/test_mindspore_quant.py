# SPDX-License-Identifier: Apache-2.0
"""Builtin primitives of int8 layers through the op plugin, against quantization/primitives.py."""

from __future__ import annotations

import numpy as np
import pytest

from ops.tests.mindspore_tensors import rounded, run, to_ms, to_np
from vllm_mindspore.quantization import primitives

pytestmark = pytest.mark.usefixtures("mindspore_cpu")
HALVES = ("float16", "bfloat16")


@pytest.fixture(params=(False, True), ids=("pynative", "graph"))
def dynamic(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("dtype", HALVES)
def test_quant_divides_with_int8_offsets(
    dtype: str, dynamic: bool, rng: np.random.Generator
) -> None:
    from mindspore.ops.auto_generate import gen_ops_prim

    x, scale = rng.standard_normal((5, 40)), rng.uniform(0.01, 0.1, 40)
    offset = rng.integers(-100, 100, 40, np.int8)
    quant = gen_ops_prim.QuantV2()
    found = run(quant, [to_ms(x, dtype), to_ms(scale, dtype), to_ms(offset, "int8")], dynamic)
    wanted = primitives.quantize(rounded(x, dtype), rounded(scale, dtype), offset)
    np.testing.assert_array_equal(to_np(found), wanted)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("size", [1, 40])
def test_quant_multiplies_with_float_offsets(
    dtype: str, size: int, dynamic: bool, rng: np.random.Generator
) -> None:
    from mindspore.ops.auto_generate import gen_ops_prim

    x, scale = rng.standard_normal((5, 40)), rng.uniform(10, 100, size)
    offset = rng.integers(-100, 100, size).astype(np.float64)
    quant = gen_ops_prim.QuantV2()
    found = run(quant, [to_ms(v, dtype) for v in (x, scale, offset)], dynamic)
    parts = (rounded(v, dtype) for v in (x, scale, offset))
    np.testing.assert_array_equal(to_np(found), primitives.quantize_reciprocal(*parts))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("smooth", [False, True])
def test_dynamic_quant(dtype: str, smooth: bool, dynamic: bool, rng: np.random.Generator) -> None:
    from mindspore.ops.auto_generate import gen_ops_prim

    x, factors = rng.standard_normal((5, 40)), rng.uniform(0.5, 2, 40)
    inputs = [to_ms(x, dtype)] + ([to_ms(factors, dtype)] if smooth else [])
    codes, scales = run(gen_ops_prim.DynamicQuantExt(), inputs, dynamic)
    given = rounded(factors, dtype) if smooth else None
    wanted, wanted_scales = primitives.quantize_per_token(rounded(x, dtype), given)
    np.testing.assert_array_equal(to_np(codes), wanted)
    np.testing.assert_array_equal(to_np(scales), wanted_scales)


@pytest.mark.parametrize("transpose", [True, False])
@pytest.mark.parametrize(("dtype", "scales"), [("bfloat16", "float32"), ("float16", "int64")])
def test_quant_matmul(
    dtype: str, scales: str, transpose: bool, dynamic: bool, rng: np.random.Generator
) -> None:
    import mindspore as ms
    from mindspore.ops.auto_generate import gen_ops_prim

    x, w = rng.integers(-128, 128, (5, 40), np.int8), rng.integers(-128, 128, (7, 40), np.int8)
    scale = rng.uniform(1e-4, 1e-3, 7).astype(np.float32)
    bias = rng.integers(-5000, 5000, 7, np.int32)
    stored = primitives.encode_deq_scale(scale) if scales == "int64" else scale
    matmul = gen_ops_prim.QuantBatchMatmul(False, transpose, getattr(ms, dtype))
    inputs = [
        to_ms(x, "int8"),
        to_ms(w if transpose else w.T.copy(), "int8"),
        to_ms(stored, scales),
    ]

    def product(x: object, w: object, scale: object, bias: object) -> object:
        return matmul(x, w, scale, None, bias, None)

    found = run(product, [*inputs, to_ms(bias, "int32")], dynamic)
    wanted = primitives.dequantize(primitives.accumulate(x, w), scale, bias)
    np.testing.assert_array_equal(to_np(found), rounded(wanted, dtype))


def test_quant_matmul_per_token(dynamic: bool, rng: np.random.Generator) -> None:
    import mindspore as ms
    from mindspore.ops.auto_generate import gen_ops_prim

    x, w = rng.integers(-128, 128, (5, 40), np.int8), rng.integers(-128, 128, (7, 40), np.int8)
    scale, tokens = (rng.uniform(1e-3, 1e-2, n).astype(np.float32) for n in (7, 5))
    matmul = gen_ops_prim.QuantBatchMatmul(False, True, ms.bfloat16)

    def product(x: object, w: object, scale: object, tokens: object) -> object:
        return matmul(x, w, scale, None, None, tokens)

    inputs = [to_ms(x, "int8"), to_ms(w, "int8"), to_ms(scale, "float32"), to_ms(tokens, "float32")]
    found = run(product, inputs, dynamic)
    wanted = primitives.dequantize_per_token(primitives.accumulate(x, w), scale, tokens)
    np.testing.assert_array_equal(to_np(found), rounded(wanted, "bfloat16"))
