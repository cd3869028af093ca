# SPDX-License-Identifier: Apache-2.0
"""Builtin primitives of int8 layers through the op plugin, against quantization/primitives.py."""

from __future__ import annotations

import numpy as np
import pytest

from ops.tests.mindspore_tensors import rounded, run, to_ms, to_np
from ops.tests.native import UNIT_ROUNDOFF
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


def weight_quant_inputs(
    rng: np.random.Generator, dtype: str, bits: int, groups: int, transpose: bool
) -> tuple[list[object], list[object]]:
    """x, weight, scale, offset and bias for MindSpore, and rounded for numpy."""
    import mindspore as ms

    limit = 1 << (bits - 1)
    w = rng.integers(-limit, limit, (6, 128), np.int8)
    shape = (6, groups) if groups else (6,)
    scale = rounded(rng.uniform(1e-3, 1e-2, shape), dtype)
    offset = rounded(rng.integers(-limit, limit, shape), dtype)
    x, bias = rng.standard_normal((5, 128)), rng.standard_normal(6)
    stored = w if transpose else np.ascontiguousarray(w.T)
    if bits == 4:
        packed = stored.view(np.uint8) & 0xF
        packed = (packed[:, 0::2] | packed[:, 1::2] << 4).view(np.int8)
        weight = ms.Tensor(packed, dtype=ms.qint4x2)
    else:
        weight = to_ms(stored, "int8")
    parameters = [v if transpose or not groups else v.T for v in (scale, offset)]
    given = [to_ms(x, dtype), weight, *(to_ms(v, dtype) for v in (*parameters, bias))]
    return given, [rounded(x, dtype), w, scale, offset, rounded(bias, dtype)]


@pytest.mark.parametrize("transpose", [True, False])
@pytest.mark.parametrize("groups", [0, 2])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("dtype", HALVES)
def test_weight_quant_matmul(
    dtype: str, bits: int, groups: int, transpose: bool, dynamic: bool, rng: np.random.Generator
) -> None:
    from mindspore.ops.auto_generate import gen_ops_prim

    group = 128 // groups if groups else 0
    matmul = gen_ops_prim.WeightQuantBatchMatmul(False, transpose, group)
    inputs, (x, w, scale, offset, bias) = weight_quant_inputs(rng, dtype, bits, groups, transpose)

    def product(x: object, w: object, scale: object, offset: object, bias: object) -> object:
        return matmul(x, w, scale, offset, None, None, bias)

    found = to_np(run(product, inputs, dynamic)).astype(np.float64)
    exact = x @ primitives.dequantize_weight(w, scale, offset).astype(np.float64).T + bias
    size = np.abs(x) @ np.abs(primitives.dequantize_weight(w, scale, offset)).T + np.abs(bias)
    limit = UNIT_ROUNDOFF[dtype] * np.abs(exact) + 64 * UNIT_ROUNDOFF["float32"] * size
    assert (np.abs(found - exact) <= limit).all()


@pytest.mark.parametrize("dtype", HALVES)
def test_weight_quant_matmul_without_options(dtype: str, rng: np.random.Generator) -> None:
    from mindspore.ops.auto_generate import gen_ops_prim

    inputs, (x, w, scale, _, _) = weight_quant_inputs(rng, dtype, 8, 0, True)
    found = run(gen_ops_prim.WeightQuantBatchMatmul(False, True), inputs[:3], False)
    exact = x @ primitives.dequantize_weight(w, scale).astype(np.float64).T
    limit = UNIT_ROUNDOFF[dtype] * np.abs(exact) + 1e-5
    assert (np.abs(to_np(found) - exact) <= limit).all()
