# SPDX-License-Identifier: Apache-2.0
"""ops.Custom kernels in graphs of unknown shape: inference, values, in-place cache writes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ops.tests import reference
from ops.tests.mindspore_tensors import FLOATS, graph, rounded, to_ms, to_np
from ops.tests.native import UNIT_ROUNDOFF, Native
from ops.tests.test_int8_cache import case_of
from vllm_mindspore.quantization import primitives

pytestmark = pytest.mark.usefixtures("mindspore_cpu")

# Results are sums of products rounded once: a few roundoffs of the largest value.
ROUNDOFFS = 8
HEADS, KV_HEADS, DIM, BLOCK = 4, 2, 32, 16
ROTARY = 24


def custom(name: str, inputs: int) -> Any:
    from vllm_mindspore.device.custom_ops import custom_op

    return custom_op(name, inputs)


def check(result: Any, expected: np.ndarray, dtype: str) -> None:
    limit = ROUNDOFFS * UNIT_ROUNDOFF[dtype] * np.abs(expected).max()
    assert result.shape == expected.shape
    assert np.abs(to_np(result).astype(np.float64) - expected).max() <= limit


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("weights", (1, 2, 3))
@pytest.mark.parametrize("bias", (False, True))
def test_linear(dtype: str, weights: int, bias: bool, rng: np.random.Generator) -> None:
    ws = [rng.standard_normal((4 + 3 * i, 8)) for i in range(weights)]
    bs = [rng.standard_normal(4 + 3 * i) for i in range(weights if bias else 0)]
    name = f"vmo_linear_{'bias_' if bias else ''}{weights}"
    tensors = [to_ms(v, dtype) for v in (*ws, *bs)]
    linear = custom(name, 1 + len(tensors))
    cell = graph(linear, [to_ms(np.ones((1, 8)), dtype), *tensors])
    for tokens in (3, 1, 9):  # one compiled graph, several shapes
        x = rng.standard_normal((tokens, 8))
        expected = np.concatenate([rounded(x, dtype) @ rounded(w, dtype).T for w in ws], 1)
        if bias:
            expected += np.concatenate([rounded(b, dtype) for b in bs])
        check(cell(to_ms(x, dtype), *tensors), expected, dtype)


def test_wrong_number_of_weights_names_the_right_kernel(
    library: Native, rng: np.random.Generator
) -> None:
    tensors = [to_ms(rng.standard_normal((4, 8)), "float32") for _ in range(3)]
    # The operator name registers its input count once per process: a fresh one is needed.
    from mindspore import ops
    from mindspore.ops import CustomRegOp, DataType

    register = CustomRegOp("vmo_linear_misused")
    for index in range(3):
        register = register.input(index, f"x{index}", "required")
    info = register.output(0, "y", "required").dtype_format(*[DataType.None_None] * 4)
    path = library.control.path
    linear = ops.Custom(
        f"{path}:vmo_linear_1",
        None,
        None,
        func_type="aot",
        reg_info=info.target("CPU").get_op_info(),
    )
    with pytest.raises(RuntimeError):
        to_np(graph(linear, tensors)(*tensors))
    assert "vmo_linear_2" in library.control.last_error()


@pytest.mark.parametrize("dtype", FLOATS)
def test_gate_up_swiglu_and_lm_head(dtype: str, rng: np.random.Generator) -> None:
    gate, up = rng.standard_normal((6, 16)), rng.standard_normal((6, 16))
    head = rng.standard_normal((11, 16))
    weights = [to_ms(v, dtype) for v in (gate, up, head)]
    swiglu, lm_head = custom("vmo_gate_up_swiglu", 3), custom("vmo_lm_head", 3)

    def both(x: Any, rows: Any, gate: Any, up: Any, head: Any) -> Any:
        return swiglu(x, gate, up), lm_head(x, rows, head)

    cell = graph(both, [to_ms(np.ones((1, 16)), dtype), to_ms([0], "int32"), *weights])
    for rows in ([0], [4, 2]):
        x = rng.standard_normal((5, 16))
        wide = rounded(x, dtype)
        y, logits = cell(to_ms(x, dtype), to_ms(rows, "int32"), *weights)
        products = [rounded(wide @ rounded(w, dtype).T, dtype) for w in (gate, up)]
        check(y, reference.silu(products[0]) * products[1], dtype)
        assert str(logits.dtype) == "Float32"
        check(logits, wide[rows] @ rounded(head, dtype).T, "float32")


@pytest.mark.parametrize("dtype", FLOATS)
def test_quantized_linear_and_lm_head(dtype: str, rng: np.random.Generator) -> None:
    """Inference finds the weights behind the descriptor."""
    codes = [rng.integers(-128, 128, (n, 8), np.int8) for n in (5, 7)]
    scales = [rng.uniform(1e-3, 1e-2, n).astype(np.float32) for n in (5, 7)]
    descriptor, factors = to_ms([2, 8, 0, 0], "int32"), to_ms(np.ones(8), "float32")
    weights = [to_ms(w, "int8") for w in codes]
    given = [to_ms(v, "float32") for v in scales]
    both = [descriptor, *weights, *given, factors]
    head = [descriptor, weights[1], given[1], factors]
    linear, lm_head = custom("vmo_linear_2", 7), custom("vmo_lm_head", 6)
    row, index = to_ms(np.ones((1, 8)), dtype), to_ms([0], "int32")
    linear_cell, head_cell = graph(linear, [row, *both]), graph(lm_head, [row, index, *head])
    for tokens in (3, 1):
        x = rng.standard_normal((tokens, 8))
        quantized, tokens_scale = primitives.quantize_per_token(rounded(x, dtype))
        expected = [
            primitives.dequantize_per_token(primitives.accumulate(quantized, w), s, tokens_scale)
            for w, s in zip(codes, scales, strict=True)
        ]
        y = linear_cell(to_ms(x, dtype), *both)
        np.testing.assert_array_equal(to_np(y), rounded(np.concatenate(expected, 1), dtype))
        logits = head_cell(to_ms(x, dtype), to_ms([tokens - 1], "int32"), *head)
        np.testing.assert_array_equal(to_np(logits), expected[1][tokens - 1 :])


@pytest.mark.parametrize("bits", [8, 4])
def test_linear_of_grouped_weights(bits: int, rng: np.random.Generator) -> None:
    """The descriptor tells the kernel the groups, inference needs no more than the shapes."""
    limit = 1 << (bits - 1)
    codes = rng.integers(-limit, limit, (5, 128), np.int8)
    stored = codes if bits == 8 else primitives.int4_blocks(codes)
    scale = rng.uniform(1e-3, 1e-2, (5, 2)).astype(np.float32)
    kind = 3 if bits == 8 else 4
    tensors = [to_ms([kind, 128, 64, 0], "int32"), to_ms(stored, "int8"), to_ms(scale, "float32")]
    cell = graph(custom("vmo_linear_1", 4), [to_ms(np.ones((1, 128)), "bfloat16"), *tensors])
    x = rng.standard_normal((3, 128))
    exact = rounded(x, "bfloat16") @ primitives.dequantize_weight(codes, scale).T
    check(cell(to_ms(x, "bfloat16"), *tensors), exact, "bfloat16")


@pytest.mark.parametrize("dtype", FLOATS)
def test_cache_write_then_attention(dtype: str, rng: np.random.Generator) -> None:
    from mindspore import ops

    write, attend = custom("vmo_reshape_and_cache", 5), custom("vmo_paged_attention", 8)

    def step(*args: Any) -> Any:
        (
            query,
            key,
            value,
            key_cache,
            value_cache,
            slots,
            tables,
            contexts,
            queries,
            ints,
            floats,
        ) = args
        written = write(key, value, key_cache, value_cache, slots)
        query = ops.depend(query, written)
        return attend(query, key_cache, value_cache, tables, contexts, queries, ints, floats)

    case = reference.paged_case(
        rng, [20, 3], [4, 3], heads=HEADS, kv_heads=KV_HEADS, dim=DIM, block=BLOCK
    )
    tensors = [
        to_ms(v, dtype)
        for v in (case.query, case.new_keys, case.new_values, case.keys, case.values)
    ]
    tensors += [to_ms(v, "int32") for v in (case.slots, case.tables, case.contexts, case.queries)]
    tensors += attributes(qk_norm=False)
    result = graph(step, tensors)(*tensors)
    keys, values = written_caches(case, case.new_keys)
    np.testing.assert_array_equal(to_np(tensors[3]), rounded(keys, dtype))
    np.testing.assert_array_equal(to_np(tensors[4]), rounded(values, dtype))
    expected = reference.paged_attention(
        rounded(case.query, dtype),
        rounded(keys, dtype),
        rounded(values, dtype),
        case,
        HEADS,
        DIM**-0.5,
    )
    check(result, expected, dtype)


def attributes(*, qk_norm: bool) -> list[Any]:
    ints = [HEADS, KV_HEADS, DIM, ROTARY, 0, int(qk_norm), 0, 0]
    return [to_ms(ints, "int32"), to_ms([DIM**-0.5, 1e-6], "float32")]


def written_caches(case: reference.PagedCase, new_keys: np.ndarray) -> list[np.ndarray]:
    caches = []
    for cache, new in ((case.keys, new_keys), (case.values, case.new_values)):
        copy = cache.copy()
        copy.reshape(-1, KV_HEADS, DIM)[case.slots] = new.reshape(-1, KV_HEADS, DIM)
        caches.append(copy)
    return caches


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("qk_norm", (False, True))
def test_attention_block(dtype: str, qk_norm: bool, rng: np.random.Generator) -> None:
    attend = custom("vmo_attention_block", 13)
    gammas = [rng.standard_normal(DIM) for _ in range(2)]
    cell = None
    for contexts, queries in (([20, 3, 40], [4, 3, 1]), ([7], [7])):
        case = reference.paged_case(
            rng, contexts, queries, heads=HEADS, kv_heads=KV_HEADS, dim=DIM, block=BLOCK
        )
        qkv = np.concatenate([case.query, case.new_keys, case.new_values], 1)
        positions = np.concatenate(
            [np.arange(c - q, c) for c, q in zip(contexts, queries, strict=True)]
        )
        cos, sin = reference.angles(positions, ROTARY, interleaved=False)
        tensors = [to_ms(v, dtype) for v in (qkv, *gammas)]
        tensors += [to_ms(v, "float32") for v in (cos, sin)]
        tensors += [
            to_ms(v, "int32") for v in (case.slots, case.tables, case.contexts, case.queries)
        ]
        tensors += [to_ms(v, dtype) for v in (case.keys, case.values)]
        tensors += attributes(qk_norm=qk_norm)
        cell = cell or graph(attend, tensors)
        result = cell(*tensors)

        def prepare(
            x: np.ndarray, gamma: np.ndarray, cos: np.ndarray = cos, sin: np.ndarray = sin
        ) -> np.ndarray:
            x = rounded(x, dtype)
            if qk_norm:
                heads = x.reshape(x.shape[0], -1, DIM)
                x = rounded(reference.rms_norm(heads, rounded(gamma, dtype), 1e-6)[0], dtype)
                x = x.reshape(heads.shape[0], -1)
            return rounded(reference.rotary(x, cos, sin, DIM, interleaved=False), dtype)

        query, new_keys = prepare(case.query, gammas[0]), prepare(case.new_keys, gammas[1])
        keys, values = written_caches(case, new_keys)
        check(tensors[9], rounded(keys, dtype), dtype)
        np.testing.assert_array_equal(to_np(tensors[10]), rounded(values, dtype))
        expected = reference.paged_attention(
            query, rounded(keys, dtype), rounded(values, dtype), case, HEADS, DIM**-0.5
        )
        check(result, expected, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_attention_block_with_an_int8_cache(dtype: str, rng: np.random.Generator) -> None:
    """The numpy definition of the codes and float64 attention over what they stand for."""
    case = case_of(
        rng, [20, 3, 40], [4, 3, 1], heads=HEADS, kv_heads=KV_HEADS, dim=DIM, block=BLOCK
    )
    codes = case.written(dtype)
    wide = case.inputs(dtype)
    tensors = [to_ms(t.wide() if t.dtype == dtype else t.array, t.dtype) for t in wide]
    result = graph(custom("vmo_attention_block", 14), tensors)(*tensors)
    check(result, case.expected(dtype, codes), dtype)
    for found, expected in zip(tensors[9:11], codes, strict=True):
        np.testing.assert_array_equal(found.asnumpy(), expected)


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_attention_block_equals_the_primitive_chain(dtype: str, rng: np.random.Generator) -> None:
    """Same kernels, same rounding points: bit for bit, when the angles fit the dtype."""
    from mindspore import ops
    from mindspore.ops.auto_generate import gen_ops_prim

    case = reference.paged_case(
        rng, [20, 3], [4, 3], heads=HEADS, kv_heads=KV_HEADS, dim=DIM, block=BLOCK
    )
    positions = np.array([16, 17, 18, 19, 0, 1, 2])
    cos, sin = (rounded(v, dtype) for v in reference.angles(positions, DIM, interleaved=False))
    gammas = [to_ms(rng.standard_normal(DIM), dtype) for _ in range(2)]
    norm, rope = gen_ops_prim.RmsNorm(1e-6), gen_ops_prim.ApplyRotaryPosEmb(2)
    write = gen_ops_prim.ReshapeAndCache()
    attend = gen_ops_prim.PagedAttention(HEADS, DIM**-0.5, KV_HEADS)
    fused = custom("vmo_attention_block", 13)

    def chain(*args: Any) -> Any:
        q, k, v, q_gamma, k_gamma, cos, sin, slots, tables, contexts, queries, kc, vc, unused = args
        q = norm(q.reshape(-1, HEADS, DIM), q_gamma)[0].reshape(-1, HEADS * DIM)
        k = norm(k.reshape(-1, KV_HEADS, DIM), k_gamma)[0].reshape(-1, KV_HEADS * DIM)
        q, k = rope(q, k, cos, sin, unused)
        q = ops.depend(q, write(k, v, kc, vc, slots))
        return attend(q, kc, vc, tables, contexts, None, None, None, queries)

    parts = [to_ms(v, dtype) for v in (case.query, case.new_keys, case.new_values)]
    integers = [to_ms(v, "int32") for v in (case.slots, case.tables, case.contexts, case.queries)]
    caches = [[to_ms(v, dtype) for v in (case.keys, case.values)] for _ in range(2)]
    chain_inputs = [*parts, *gammas, to_ms(cos, dtype), to_ms(sin, dtype), *integers, *caches[0]]
    chain_inputs.append(to_ms(positions, "int32"))
    expected = graph(chain, chain_inputs)(*chain_inputs)
    qkv = to_ms(np.concatenate([case.query, case.new_keys, case.new_values], 1), dtype)
    ints = to_ms([HEADS, KV_HEADS, DIM, DIM, 0, 1, 0, 0], "int32")
    inputs = [qkv, *gammas, to_ms(cos, "float32"), to_ms(sin, "float32"), *integers, *caches[1]]
    inputs += [ints, to_ms([DIM**-0.5, 1e-6], "float32")]
    result = graph(fused, inputs)(*inputs)
    np.testing.assert_array_equal(to_np(result), to_np(expected))
    for one, other in zip(*caches, strict=True):
        np.testing.assert_array_equal(to_np(one), to_np(other))


def test_stats_and_noop(library: Native, rng: np.random.Generator) -> None:
    x, w = to_ms(rng.standard_normal((2, 8)), "float32"), to_ms(np.ones((4, 8)), "float32")
    cell = graph(custom("vmo_linear_1", 2), [x, w])
    cell(x, w).asnumpy()
    library.control.enable_stats(True)
    library.control.reset_stats()
    for _ in range(3):
        cell(x, w).asnumpy()
    stats = library.control.op_stats("vmo_linear_1")
    library.control.enable_stats(False)
    assert stats.calls == 3
    assert 0 < stats.seconds < 1
    head = custom("vmo_lm_head", 3)
    inputs = [x, to_ms([99], "int32"), w]  # no such row
    library.control.set_noop(True)
    try:
        graph(head, inputs)(*inputs).asnumpy()
    finally:
        library.control.set_noop(False)
    with pytest.raises(RuntimeError):
        graph(head, inputs)(*inputs).asnumpy()
