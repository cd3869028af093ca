# SPDX-License-Identifier: Apache-2.0
"""Builtin primitives through the op plugin: PyNative, dynamic graphs, strided views."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ops.tests import reference
from ops.tests.mindspore_tensors import FLOATS, rounded, run, to_ms, to_np
from ops.tests.native import Native

pytestmark = pytest.mark.usefixtures("mindspore_cpu")

TOLERANCE = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 1.6e-2}


def check(result: Any, expected: npt.NDArray[np.float64], dtype: str) -> None:
    """Relative to the largest value, as every element is a sum of rounded terms."""
    error = np.abs(to_np(result).astype(np.float64) - expected).max()
    assert error <= TOLERANCE[dtype] * np.abs(expected).max()


@pytest.fixture(params=(False, True), ids=("pynative", "graph"))
def dynamic(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("transpose_a", (False, True))
@pytest.mark.parametrize("transpose_b", (False, True))
def test_matmul(
    dtype: str, transpose_a: bool, transpose_b: bool, dynamic: bool, rng: np.random.Generator
) -> None:
    from mindspore import ops

    a = rng.standard_normal((40, 5) if transpose_a else (5, 40))
    b = rng.standard_normal((7, 40) if transpose_b else (40, 7))
    matmul = ops.MatMul(transpose_a, transpose_b)
    result = run(matmul, [to_ms(a, dtype), to_ms(b, dtype)], dynamic)
    left, right = rounded(a, dtype), rounded(b, dtype)
    check(result, (left.T if transpose_a else left) @ (right.T if transpose_b else right), dtype)


@pytest.mark.parametrize("dtype", ("float64", "int32", "int8", "int64"))
def test_matmul_of_other_types(dtype: str, rng: np.random.Generator) -> None:
    from mindspore import ops

    a, b = rng.integers(-5, 5, (3, 4)), rng.integers(-5, 5, (4, 2))
    result = ops.MatMul()(to_ms(a, dtype), to_ms(b, dtype))
    np.testing.assert_array_equal(to_np(result), a @ b)


@pytest.mark.parametrize("dtype", FLOATS)
def test_dense(dtype: str, dynamic: bool, rng: np.random.Generator) -> None:
    from mindspore.ops.auto_generate import gen_ops_prim

    x, w, b = rng.standard_normal((2, 3, 33)), rng.standard_normal((9, 33)), rng.standard_normal(9)
    result = run(gen_ops_prim.Dense(), [to_ms(v, dtype) for v in (x, w, b)], dynamic)
    check(result, rounded(x, dtype) @ rounded(w, dtype).T + rounded(b, dtype), dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("index", ("int32", "int64"))
def test_embedding_and_gather(
    dtype: str, index: str, dynamic: bool, rng: np.random.Generator
) -> None:
    from mindspore import ops
    from mindspore.ops.auto_generate import gen_ops_prim

    table, ids = rng.standard_normal((11, 6)), np.array([[3, 0], [10, 3]])
    embedding, gather = gen_ops_prim.Embedding(), ops.Gather()
    inputs = [to_ms(ids, index), to_ms(table, dtype)]
    expected = rounded(table, dtype)[ids]

    def take(ids: Any, table: Any) -> Any:
        return gather(table, ids, 0)

    if not dynamic:  # in graphs Embedding wants a Parameter
        np.testing.assert_array_equal(to_np(embedding(*inputs)), expected)
    np.testing.assert_array_equal(to_np(run(take, inputs, dynamic)), expected)


def test_gather_axis_and_batch(rng: np.random.Generator) -> None:
    from mindspore import ops

    table = rng.standard_normal((3, 4, 5, 2)).astype(np.float32)
    ids = np.array([[1, -1, 0], [2, 2, 2], [0, 3, 1]], np.int32)
    result = ops.Gather()(to_ms(table, "float32"), to_ms(ids, "int32"), 2)
    np.testing.assert_array_equal(to_np(result), np.take(table, ids, axis=2))
    batched = ops.Gather(1)(to_ms(table, "float32"), to_ms(ids, "int32"), 1)
    np.testing.assert_array_equal(to_np(batched), np.stack([table[i][ids[i]] for i in range(3)]))


def test_out_of_range_index_is_an_error(library: Native) -> None:
    from mindspore import ops

    with pytest.raises(RuntimeError):
        ops.Gather()(to_ms(np.ones((3, 2)), "float32"), to_ms([5], "int32"), 0).asnumpy()
    assert library.control.last_error() == "Gather: indices[0] is 5; expected a value from -3 to 2"


@pytest.mark.parametrize("dtype", FLOATS)
def test_norms(dtype: str, dynamic: bool, rng: np.random.Generator) -> None:
    from mindspore.ops.auto_generate import gen_ops_prim

    x, r, gamma = (rng.standard_normal(s) for s in ((4, 48), (4, 48), (48,)))
    rms, add_rms = gen_ops_prim.RmsNorm(1e-5), gen_ops_prim.AddRmsNorm()
    inputs = [to_ms(v, dtype) for v in (x, r, gamma)]

    def add_norm(x: Any, residual: Any, gamma: Any) -> Any:
        return add_rms(x, residual, gamma, 1e-5)

    y, rstd = run(rms, [inputs[0], inputs[2]], dynamic)
    expected, scale = reference.rms_norm(rounded(x, dtype), rounded(gamma, dtype), 1e-5)
    check(y, expected, dtype)
    check(rstd.reshape(-1), scale, "float32")
    y, rstd, total = run(add_norm, inputs, dynamic)
    summed = rounded(rounded(x, dtype) + rounded(r, dtype), dtype)
    np.testing.assert_array_equal(to_np(total), summed)
    check(y, reference.rms_norm(summed, rounded(gamma, dtype), 1e-5)[0], dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_activations(dtype: str, dynamic: bool, rng: np.random.Generator) -> None:
    from mindspore.ops.auto_generate import gen_ops_prim

    x = rng.standard_normal((3, 4, 10)) * 3
    swiglu, silu = gen_ops_prim.Swiglu(), gen_ops_prim.SiLU()
    wide = rounded(x, dtype)
    for axis in (-1, 1):
        gate, up = np.split(wide, 2, axis)

        def split_and_multiply(x: Any) -> Any:
            return swiglu(x, axis)  # noqa: B023 - used in this turn only

        result = run(split_and_multiply, [to_ms(x, dtype)], dynamic)
        check(result, reference.silu(gate) * up, dtype)
    check(run(silu, [to_ms(x, dtype)], dynamic), reference.silu(wide), dtype)


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
@pytest.mark.parametrize("cos_format", (0, 1, 2, 3))
def test_apply_rotary(dtype: str, cos_format: int, dynamic: bool, rng: np.random.Generator) -> None:
    from mindspore.ops.auto_generate import gen_ops_prim

    tokens, dim = 5, 16
    q, k = rng.standard_normal((tokens, 4 * dim)), rng.standard_normal((tokens, 2 * dim))
    positions = np.array([4, 0, 2, 2, 1])
    cos, sin = reference.angles(np.arange(tokens), dim, interleaved=cos_format % 2 == 1)
    rope = gen_ops_prim.ApplyRotaryPosEmb(cos_format)
    inputs = [to_ms(v, dtype) for v in (q, k, cos, sin)] + [to_ms(positions, "int32")]
    results = run(rope, inputs, dynamic)
    rows = positions if cos_format < 2 else np.arange(tokens)
    c, s = rounded(cos, dtype)[rows], rounded(sin, dtype)[rows]
    for result, x in zip(results, (q, k), strict=True):
        check(result, reference.rotary(rounded(x, dtype), c, s, dim, cos_format % 2 == 1), dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("mode", (0, 1))
def test_rotary_position_embedding(
    dtype: str, mode: int, dynamic: bool, rng: np.random.Generator
) -> None:
    from mindspore.ops.auto_generate import gen_ops_prim

    x = rng.standard_normal((2, 5, 3, 32))
    cos, sin = reference.angles(np.arange(5), 32, interleaved=mode == 1)
    rope = gen_ops_prim.RotaryPositionEmbedding()
    inputs = [to_ms(x, dtype), *(to_ms(v.reshape(1, 5, 1, 32), dtype) for v in (cos, sin))]

    def rotate(x: Any, cos: Any, sin: Any) -> Any:
        return rope(x, cos, sin, mode)

    result = run(rotate, inputs, dynamic)
    c, s = (
        np.repeat(rounded(v, dtype)[None, :, None], 2, 0).repeat(3, 2).reshape(-1, 32)
        for v in (cos, sin)
    )
    expected = reference.rotary(rounded(x, dtype).reshape(-1, 32), c, s, 32, mode == 1)
    check(result, expected.reshape(x.shape), dtype)


def test_rotary_position_embedding_of_one_batch(dynamic: bool, rng: np.random.Generator) -> None:
    """The angles repeat over the heads alone: rows whose strides no single step describes."""
    from mindspore.ops.auto_generate import gen_ops_prim

    x = rng.standard_normal((1, 5, 3, 32))
    cos, sin = reference.angles(np.arange(5), 32, interleaved=False)
    rope = gen_ops_prim.RotaryPositionEmbedding()
    inputs = [to_ms(v, "float32") for v in (x, cos.reshape(1, 5, 1, 32), sin.reshape(1, 5, 1, 32))]

    def rotate(x: Any, cos: Any, sin: Any) -> Any:
        return rope(x, cos, sin, 0)

    result = run(rotate, inputs, dynamic)
    c, s = (rounded(v, "float32").repeat(3, 0) for v in (cos, sin))
    expected = reference.rotary(rounded(x, "float32").reshape(-1, 32), c, s, 32, False)
    check(result, expected.reshape(x.shape), "float32")


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_cache_write_and_paged_attention(
    dtype: str, dynamic: bool, rng: np.random.Generator
) -> None:
    from mindspore import ops
    from mindspore.ops.auto_generate import gen_ops_prim

    case = reference.paged_case(
        rng, contexts=[20, 3, 40], queries=[4, 3, 1], heads=4, kv_heads=2, dim=16, block=16
    )
    cache = gen_ops_prim.ReshapeAndCache()
    attend = gen_ops_prim.PagedAttention(4, 0.25, 2)

    def step(
        q: Any,
        k: Any,
        v: Any,
        kc: Any,
        vc: Any,
        slots: Any,
        tables: Any,
        contexts: Any,
        queries: Any,
    ) -> Any:
        written = cache(k, v, kc, vc, slots)
        return attend(ops.depend(q, written), kc, vc, tables, contexts, None, None, None, queries)

    keys, values = case.keys.copy(), case.values.copy()
    inputs = [to_ms(v, dtype) for v in (case.query, case.new_keys, case.new_values, keys, values)]
    tables = [to_ms(v, "int32") for v in (case.slots, case.tables, case.contexts, case.queries)]
    result = run(step, [*inputs, *tables], dynamic)
    keys.reshape(-1, 2, 16)[case.slots] = case.new_keys.reshape(-1, 2, 16)
    values.reshape(-1, 2, 16)[case.slots] = case.new_values.reshape(-1, 2, 16)
    np.testing.assert_array_equal(to_np(inputs[3]), rounded(keys, dtype))
    np.testing.assert_array_equal(to_np(inputs[4]), rounded(values, dtype))
    expected = reference.paged_attention(
        rounded(case.query, dtype), rounded(keys, dtype), rounded(values, dtype), case, 4, 0.25
    )
    check(result, expected, dtype)


@pytest.mark.parametrize("dtype", (*FLOATS, "float64", "int32", "int8", "bool"))
def test_layout_ops(dtype: str, dynamic: bool, rng: np.random.Generator) -> None:
    from mindspore import ops
    from mindspore.ops.auto_generate import gen_ops_prim

    x = rng.integers(0, 2, (4, 12))
    tensor, values = to_ms(x, dtype), x.astype(np.float64)
    split, reshape, zeros = gen_ops_prim.SplitWithSize(), ops.Reshape(), ops.ZerosLike()

    def split_columns(x: Any) -> Any:
        return split(x, (3, 8, 1), 1)

    def rows_of_six(x: Any) -> Any:
        return reshape(x, (-1, 6))

    parts = run(split_columns, [tensor], dynamic)
    for part, expected in zip(parts, np.split(values, [3, 11], 1), strict=True):
        np.testing.assert_array_equal(to_np(part), expected)
    np.testing.assert_array_equal(to_np(run(rows_of_six, [tensor], dynamic)), values.reshape(-1, 6))
    np.testing.assert_array_equal(to_np(run(zeros, [tensor], dynamic)), 0 * values)


ALL_TYPES = (*FLOATS, "float64", "bool", "int8", "uint8", "int16", "int32", "int64")


@pytest.mark.parametrize("source", ALL_TYPES)
def test_cast(source: str, dynamic: bool) -> None:
    import mindspore as ms
    from mindspore import ops

    values = np.array([[0, 1, 2, 100]] if source != "bool" else [[0, 1, 1, 0]])
    cast = ops.Cast()
    for target in ALL_TYPES:
        kind = ms.bool_ if target == "bool" else getattr(ms, target)

        def convert(x: Any) -> Any:
            return cast(x, kind)  # noqa: B023 - used in this turn only

        result = run(convert, [to_ms(values, source)], dynamic)
        np.testing.assert_array_equal(to_np(result), values != 0 if target == "bool" else values)


def test_strided_views_are_read_through_their_strides(rng: np.random.Generator) -> None:
    import mindspore as ms
    from mindspore import mint, ops
    from mindspore.ops.auto_generate import gen_ops_prim

    ms.set_context(mode=ms.PYNATIVE_MODE)
    x = rng.standard_normal((6, 24)).astype(np.float32)
    tensor, gamma = ms.Tensor(x), np.ones(8, np.float32)
    view = mint.narrow(tensor, 1, 8, 8)
    assert not view.is_contiguous()
    expected = reference.rms_norm(x[:, 8:16].astype(np.float64), gamma.astype(np.float64), 1e-6)[0]
    check(gen_ops_prim.RmsNorm(1e-6)(view, ms.Tensor(gamma))[0], expected, "float32")
    turned = mint.transpose(tensor, 0, 1)
    check(ops.MatMul()(turned, tensor), x.T.astype(np.float64) @ x.astype(np.float64), "float32")
    np.testing.assert_array_equal(to_np(ops.Cast()(view, ms.float64)), x[:, 8:16])
    np.testing.assert_array_equal(to_np(ops.Reshape()(turned, (-1,))), x.T.reshape(-1))
    check(gen_ops_prim.Swiglu()(view, -1), reference.silu(x[:, 8:12]) * x[:, 12:16], "float32")
    ids = mint.narrow(ms.Tensor(np.arange(12, dtype=np.int32).reshape(3, 4) % 6), 1, 1, 2)
    np.testing.assert_array_equal(
        to_np(ops.Gather()(view, ids, 0)), x[:, 8:16][np.arange(12).reshape(3, 4)[:, 1:3] % 6]
    )
