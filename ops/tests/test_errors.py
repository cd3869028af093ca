# SPDX-License-Identifier: Apache-2.0
"""Every bad argument is refused with a message naming op, argument, found and expected."""

from __future__ import annotations

import ctypes
import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ops.tests import reference
from ops.tests.native import (
    Native,
    NativeError,
    Tensor,
    TensorView,
    empty,
    native_path,
    tensor,
)


def f32(*shape: int) -> Tensor:
    return tensor(np.ones(shape), "float32")


def i32(*values: int) -> Tensor:
    return Tensor(np.array(values, np.int32), "int32")


X, W, Y = f32(2, 8), f32(4, 8), f32(2, 4)
CACHE = f32(2, 16, 1, 4)
BF16 = tensor(np.ones((4, 8)), "bfloat16")

CASES: list[tuple[str, list[Any], str]] = [
    ("linear", [X, 1, [f32(4, 9)], None, Y], "argument w has shape [4, 9]; expected [*, 8]"),
    ("linear", [X, 1, [BF16], None, Y], "argument w has dtype bfloat16; expected float32"),
    ("linear", [X, 0, [W], None, Y], "got 0 weights; expected 1 to 3"),
    ("linear", [X, 1, [W], None, f32(2, 5)], "output y has shape [2, 5]; expected 8 elements"),
    ("linear", [X, 1, [W], [f32(5)], Y], "argument bias has shape [5]; expected [4]"),
    ("linear", [i32(1, 2), 1, [W], None, Y], "argument x has dtype int32; expected float32"),
    (
        "linear",
        [X, 1, [Tensor(f32(8, 4).array.T, "float32")], None, Y],
        "must have adjacent elements",
    ),
    (
        "linear",
        [X, 1, [W], None, Tensor(f32(2, 8).array[:, ::2], "float32")],
        "output y of shape [2, 4] has gaps",
    ),
    ("matmul", [X, W, 0, 0, Y], "the inner extents of a [2, 8] and b [4, 8] differ: 8 and 4"),
    ("lm_head", [X, i32(2), W, f32(1, 4)], "indices[0] is 2; expected a value from -2 to 1"),
    ("gather", [X, i32(-3), 0, 0, f32(1, 8)], "indices[0] is -3"),
    ("gather", [X, i32(0), 2, 0, f32(1, 8)], "axis 2 is out of range for shape [2, 8]"),
    (
        "rms_norm",
        [X, f32(4), 1e-6, X, None],
        "gamma has shape [4]; expected the trailing axes of x [2, 8]",
    ),
    (
        "rotary",
        [X, f32(2, 6), f32(2, 6), 4, 0, X],
        "cos has 6 columns; expected an even number of at most",
    ),
    (
        "rotary",
        [X, f32(3, 4), f32(3, 4), 4, 0, X],
        "argument cos has shape [3, 4]; expected [2, 4]",
    ),
    ("swiglu", [f32(2, 7), -1, f32(2, 3)], "axis 1 of x [2, 7] is odd"),
    (
        "reshape_and_cache",
        [f32(2, 4), None, CACHE, None, i32(0)],
        "argument key has shape [2, 4]; expected 1 tokens",
    ),
    ("split", [X, 1, 1, [f32(2, 7)]], "outputs take 7 elements of axis 1 of x [2, 8]"),
    ("cast", [X, f32(3)], "output y has shape [3]; expected 16 elements"),
]


@pytest.mark.parametrize(("name", "arguments", "message"), CASES)
def test_message(library: Native, name: str, arguments: list[Any], message: str) -> None:
    with pytest.raises(NativeError, match=re.escape(f"{name}: ") + ".*" + re.escape(message)):
        library.call(name, *arguments)


PAGED_CASES: list[tuple[dict[str, Any], str]] = [
    (
        {"contexts": [33, 3]},
        "2 query tokens and context length 33; expected 0 <= query <= context <= 32",
    ),
    ({"contexts": [1, 3]}, "sequence 0 has 2 query tokens and context length 1"),
    ({"queries": [-1, 3]}, "sequence 0 has -1 query tokens"),
    ({"queries": [2, 2]}, "q_seq_lens sum to 4; expected at most the 3 rows of the query"),
    ({"tables": [[0, 7], [1, 2]]}, "block_tables[0, 1] is 7; expected 0 to 6"),
    ({"tables": [[-1, 0], [1, 2]]}, "block_tables[0, 0] is -1"),
    ({"contexts": [20]}, "argument context_lens has shape [1]; expected [2]"),
]


@pytest.mark.parametrize(("change", "message"), PAGED_CASES)
def test_paged_attention(
    library: Native, change: dict[str, Any], message: str, rng: np.random.Generator
) -> None:
    case = reference.paged_case(rng, [20, 3], [2, 1], heads=2, kv_heads=1, dim=4, block=16)
    case = dataclasses.replace(case, **{k: np.array(v, np.int32) for k, v in change.items()})
    query, keys, values = (tensor(v, "float32") for v in (case.query, case.keys, case.values))
    tables = [Tensor(v, "int32") for v in (case.tables, case.contexts, case.queries)]
    out = empty(case.query.shape, "float32")
    before = out.array.copy()
    with pytest.raises(NativeError, match=re.escape(message)):
        library.call("paged_attention", query, keys, values, *tables, 2, 1, 0.5, out)
    np.testing.assert_array_equal(out.array, before)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "message"),
    [(3, 2, "got 3 heads and 2 kv heads"), (4, 4, "key_cache has 1 kv heads; expected 4")],
)
def test_head_counts(
    library: Native, heads: int, kv_heads: int, message: str, rng: np.random.Generator
) -> None:
    case = reference.paged_case(rng, [5], [1], heads=2, kv_heads=1, dim=4, block=16)
    tensors = [tensor(v, "float32") for v in (case.query, case.keys, case.values)]
    tables = [Tensor(v, "int32") for v in (case.tables, case.contexts, case.queries)]
    with pytest.raises(NativeError, match=message):
        library.call("paged_attention", *tensors, *tables, heads, kv_heads, 0.5, f32(1, 8))


def test_attention_block_attributes(library: Native) -> None:
    tensors = [f32(1)] * 11
    floats, out = tensor([0.5, 1e-6], "float32"), f32(1)
    for ints, message in (
        (i32(1, 1, 4), "int_attributes [3] and float_attributes [2] must have at least 8 and 2"),
        (i32(3, 2, 4, 4, 0, 0, 0, 0), "heads 3, kv_heads 2, head_dim 4, rotary_dim 4"),
        (i32(2, 1, 4, 3, 0, 0, 0, 0), "rotary_dim 3"),
        (i32(2, 1, 4, 4, 0, 0, 5, 0), "int_attributes[6] is 5; expected 0"),
    ):
        with pytest.raises(NativeError, match=re.escape(message)):
            library.call("attention_block", [*tensors, ints, floats, out], 13)


def test_null_tensor(library: Native) -> None:
    with pytest.raises(NativeError, match="a required tensor is a null pointer"):
        library.call("silu", X, None)


@dataclasses.dataclass(frozen=True)
class Malformed(Tensor):
    """A tensor whose view claims another rank or shape."""

    ndim: int
    shape: tuple[int, ...]

    def view(self) -> TensorView:
        view = super().view()
        view.ndim = self.ndim
        view.shape[: len(self.shape)] = self.shape
        return view


SLOTS = i32(0, 1)
KEYS = f32(2, 4)
VIEW_CALLS: list[tuple[str, list[Any]]] = [
    ("linear", [X, 2, [W, W], [f32(4), f32(4)], f32(2, 8)]),
    ("matmul", [X, W, 0, 1, Y]),
    ("gate_up_swiglu", [X, W, W, Y]),
    ("lm_head", [X, i32(0), W, f32(1, 4)]),
    ("gather", [X, i32(0), 0, 0, f32(1, 8)]),
    ("rms_norm", [X, f32(8), 1e-6, f32(2, 8), f32(2, 1)]),
    ("add_rms_norm", [X, X, f32(8), 1e-6, f32(2, 8), f32(2, 1), f32(2, 8)]),
    ("rotary", [X, f32(2, 4), f32(2, 4), 4, 0, f32(2, 8)]),
    ("swiglu", [X, -1, Y]),
    ("silu", [X, f32(2, 8)]),
    ("reshape_and_cache", [KEYS, KEYS, f32(2, 16, 1, 4), f32(2, 16, 1, 4), SLOTS]),
    (
        "paged_attention",
        [KEYS, CACHE, CACHE, Tensor(np.zeros((2, 1), np.int32), "int32"), i32(1, 1), i32(1, 1),
         1, 1, 0.5, f32(2, 4)],
    ),
    ("cast", [X, empty((2, 8), "float16")]),
    ("copy", [X, f32(2, 8)]),
    ("split", [X, 1, 2, [f32(2, 4), f32(2, 4)]]),
]  # fmt: skip
VIEW_FAULTS: list[tuple[int, tuple[int, ...], str]] = [
    (1000, (), "a tensor has 1000 dimensions; expected 0 to 8"),
    (-1, (), "a tensor has -1 dimensions; expected 0 to 8"),
    (2, (2, -3), "axis 1 of a tensor has the extent -3; expected at least 0"),
    (2, (-(2**63), 2), "axis 0 of a tensor has the extent -9223372036854775808"),
    (
        2,
        (2**40, 2**40),
        "of shape [1099511627776, 1099511627776] exceeds 64 bits",
    ),
    (3, (2**40, 2**40, 0), "exceeds 64 bits"),
    (1, (2**63 - 1,), "exceeds 64 bits"),
]


def replaced(arguments: list[Any], ndim: int, shape: tuple[int, ...]) -> Iterator[list[Any]]:
    """The arguments with each tensor in turn, those of lists too, made malformed."""
    for i, value in enumerate(arguments):
        if isinstance(value, list):
            for inner in replaced(value, ndim, shape):
                yield [*arguments[:i], inner, *arguments[i + 1 :]]
        elif isinstance(value, Tensor):
            bad = Malformed(value.array, value.dtype, ndim, shape)
            yield [*arguments[:i], bad, *arguments[i + 1 :]]


@pytest.mark.parametrize(("name", "arguments"), VIEW_CALLS)
def test_malformed_views(library: Native, name: str, arguments: list[Any]) -> None:
    library.call(name, *arguments)
    for ndim, shape, message in VIEW_FAULTS:
        for call in replaced(arguments, ndim, shape):
            with pytest.raises(
                NativeError, match=re.escape(f"{name}: ") + ".*" + re.escape(message)
            ):
                library.call(name, *call)


def test_malformed_attention_block(library: Native) -> None:
    for call in replaced([f32(1)] * 14, 2, (2, -3)):
        with pytest.raises(NativeError, match="attention_block: axis 1 of a tensor"):
            library.call("attention_block", call, 13)


def test_no_inner_extent(isa: Native) -> None:
    """K = 0: sums without terms, as many rows as x has."""
    x, w = f32(3, 0), f32(4, 0)
    for name, weights in (("linear", (1, [w], None)), ("gate_up_swiglu", (w, w))):
        y = empty((3, 4), "float32")
        isa.call(name, x, *weights, y)
        assert not y.array.any()
        with pytest.raises(NativeError, match=re.escape("shape [5, 4]; expected 12 elements")):
            isa.call(name, x, *weights, f32(5, 4))


def test_no_tokens(isa: Native) -> None:
    tables = [Tensor(np.zeros(s, np.int32), "int32") for s in ((1, 1), (1,), (1,))]
    isa.call("paged_attention", f32(0, 4), CACHE, CACHE, *tables, 1, 1, 0.5, f32(0, 4))


def test_control_functions_refuse_nonsense(library: Native) -> None:
    functions = library.functions
    assert functions.vmo_op_stats(None, None, None) == 1
    assert functions.vmo_op_stats(b"SiLU", None, None) == 1
    assert functions.vmo_test_pool(ctypes.c_int64(1), ctypes.c_int64(1), None) == 1
    measure = ctypes.CDLL(str(native_path())).vmo_measure_read_bandwidth
    measure.restype = ctypes.c_double
    for size in (-1, -(2**63), 0, 2**62):
        assert measure(ctypes.c_int64(size)) == 0.0
        assert "vmo_measure_read_bandwidth: " in library.control.last_error()


def test_message_is_printed_once(library: Native, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        with pytest.raises(NativeError):
            library.call("swiglu", f32(2, 9), -1, f32(2, 4))
    assert capfd.readouterr().err.count("swiglu: axis 1 of x [2, 9] is odd") == 1
