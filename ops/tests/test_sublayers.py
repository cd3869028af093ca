# SPDX-License-Identifier: Apache-2.0
"""The halves of a decoder layer: bit for bit the operations they are made of, one by one."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest

from ops.tests import reference
from ops.tests.native import DENSE, Native, NativeError, Tensor, empty, tensor

HEADS, KV_HEADS, DIM, ROTARY, HIDDEN, INNER = 6, 2, 20, 12, 52, 76
WIDTH = (HEADS + 2 * KV_HEADS) * DIM
EPSILON, HEAD_EPSILON = 1e-5, 1e-6
CONTEXTS, QUERIES = [70, 5, 30], [9, 5, 1]
TOKENS = sum(QUERIES)
QKV_BIAS, OUTPUT_BIAS = 1, 2


@dataclass
class Attention:
    """The tensors of one attention half, in call order but for the caches' fresh copies."""

    x: Tensor
    residual: Tensor
    gamma: Tensor
    weights: list[Tensor]
    biases: list[Tensor]
    output: Tensor
    output_bias: list[Tensor]
    block: list[Tensor]
    caches: list[Tensor]
    attributes: list[Tensor]

    def arguments(self, y: Tensor, total: Tensor) -> list[Tensor]:
        parts = [self.x, self.residual, self.gamma, *self.weights, *self.biases, self.output]
        parts += [*self.output_bias, *self.block, *self.caches, *self.attributes]
        return [*parts, y, total]

    def inputs(self) -> int:
        return 3 + 3 + len(self.biases) + 1 + len(self.output_bias) + 12


def attention(
    rng: np.random.Generator, dtype: str, *, first: bool = False, biases: int = 0
) -> Attention:
    def random(*shape: int) -> Tensor:
        return tensor(rng.standard_normal(shape), dtype)

    case = reference.paged_case(
        rng, CONTEXTS, QUERIES, heads=HEADS, kv_heads=KV_HEADS, dim=DIM, block=16
    )
    case.slots[3] = -1  # a token that must not be written
    sizes = [HEADS * DIM, KV_HEADS * DIM, KV_HEADS * DIM]
    angles = reference.angles(np.arange(TOKENS), ROTARY, interleaved=False)
    tables = (case.slots, case.tables, case.contexts, case.queries)
    integers = [HEADS, KV_HEADS, DIM, ROTARY, 0, 1, int(first), biases]
    return Attention(
        random(TOKENS, HIDDEN),
        random(TOKENS, HIDDEN),
        random(HIDDEN),
        [random(size, HIDDEN) for size in sizes],
        [random(size) for size in sizes] if biases & QKV_BIAS else [],
        random(HIDDEN, HEADS * DIM),
        [random(HIDDEN)] if biases & OUTPUT_BIAS else [],
        [random(DIM), random(DIM), *(tensor(v, "float32") for v in angles)]
        + [Tensor(v, "int32") for v in tables],
        [tensor(case.keys, dtype), tensor(case.values, dtype)],
        [
            Tensor(np.array(integers, np.int32), "int32"),
            tensor([DIM**-0.5, HEAD_EPSILON, EPSILON], "float32"),
        ],
    )


def copies(tensors: list[Tensor]) -> list[Tensor]:
    return [Tensor(each.array.copy(), each.dtype) for each in tensors]


def add_norm(
    isa: Native, x: Tensor, residual: Tensor | None, gamma: Tensor
) -> tuple[Tensor, Tensor]:
    """The norm and what it normalises."""
    normed, total = empty(x.array.shape, x.dtype), empty(x.array.shape, x.dtype)
    if residual is None:
        isa.call("rms_norm", x, gamma, EPSILON, normed, None)
        return normed, x
    isa.call("add_rms_norm", x, residual, gamma, EPSILON, normed, None, total)
    return normed, total


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("biases", [0, QKV_BIAS, OUTPUT_BIAS, QKV_BIAS | OUTPUT_BIAS])
def test_attention_equals_its_operations(
    isa: Native, dtype: str, first: bool, biases: int, rng: np.random.Generator
) -> None:
    given = attention(rng, dtype, first=first, biases=biases)
    caches = copies(given.caches)
    y, total = (empty((TOKENS, HIDDEN), dtype) for _ in range(2))
    isa.call("attention_sublayer", given.arguments(y, total), given.inputs())

    normed, summed = add_norm(isa, given.x, None if first else given.residual, given.gamma)
    qkv, attended = empty((TOKENS, WIDTH), dtype), empty((TOKENS, HEADS * DIM), dtype)
    isa.call("linear", normed, 3, given.weights, given.biases or None, qkv)
    integers = Tensor(given.attributes[0].array.copy(), "int32")
    integers.array[6:] = 0
    attributes = [integers, given.attributes[1]]
    isa.call("attention_block", [qkv, *given.block, *caches, *attributes, attended], 13)
    expected = empty((TOKENS, HIDDEN), dtype)
    isa.call("linear", attended, 1, [given.output], given.output_bias or None, expected)

    assert not np.isnan(y.wide()).any()
    np.testing.assert_array_equal(y.array, expected.array)
    np.testing.assert_array_equal(total.array, summed.array)
    for found, wanted in zip(given.caches, caches, strict=True):
        np.testing.assert_array_equal(found.array, wanted.array)


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("biases", [0, QKV_BIAS | OUTPUT_BIAS])
def test_a_decoder_equals_its_halves(
    isa: Native, dtype: str, biases: int, rng: np.random.Generator
) -> None:
    layers = [attention(rng, dtype, biases=biases) for _ in range(3)]
    shapes = [(HIDDEN,), (INNER, HIDDEN), (INNER, HIDDEN), (HIDDEN, INNER)]
    mlps = [[tensor(rng.standard_normal(s) / 4, dtype) for s in shapes] for _ in layers]
    shared = layers[0]
    caches = [copies(layer.caches) for layer in layers]
    paged, attributes = shared.block[2:], shared.attributes
    weights = [
        each
        for layer, mlp in zip(layers, mlps, strict=True)
        for each in (
            layer.gamma,
            *layer.weights,
            *layer.biases,
            layer.output,
            *layer.output_bias,
            *layer.block[:2],
            *mlp,
        )
    ]
    y, total = (empty((TOKENS, HIDDEN), dtype) for _ in range(2))
    call = [shared.x, *paged, *attributes, *weights]
    call += [*(pair[0] for pair in caches), *(pair[1] for pair in caches)]
    isa.call("decoder_layers", [*call, y, total], len(call))

    x, residual = shared.x, None
    epsilon = tensor([EPSILON], "float32")
    for layer, mlp in zip(layers, mlps, strict=True):
        layer.x, layer.residual = x, residual or x
        layer.block[2:] = paged
        layer.attributes = copies(attributes)
        layer.attributes[0].array[6] = residual is None
        first, second = ([empty((TOKENS, HIDDEN), dtype) for _ in range(2)] for _ in range(2))
        isa.call("attention_sublayer", layer.arguments(*first), layer.inputs())
        isa.call("mlp_sublayer", [*first, *mlp, epsilon, *second], 3 + len(mlp))
        x, residual = second
    assert residual is not None
    assert np.isfinite(y.wide()).all()
    np.testing.assert_array_equal(y.array, x.array)
    np.testing.assert_array_equal(total.array, residual.array)
    for layer, pair in zip(layers, caches, strict=True):
        for found, wanted in zip(pair, layer.caches, strict=True):
            np.testing.assert_array_equal(found.array, wanted.array)


@pytest.mark.parametrize("dtype", DENSE)
@pytest.mark.parametrize("tokens", [1, 5, 40])
def test_mlp_equals_its_operations(
    isa: Native, dtype: str, tokens: int, rng: np.random.Generator
) -> None:
    shapes = [(tokens, HIDDEN)] * 2 + [(HIDDEN,)] + [(INNER, HIDDEN)] * 2 + [(HIDDEN, INNER)]
    x, residual, gamma, gate, up, down = (tensor(rng.standard_normal(s), dtype) for s in shapes)
    y, total = (empty((tokens, HIDDEN), dtype) for _ in range(2))
    epsilon = tensor([EPSILON], "float32")
    isa.call("mlp_sublayer", [x, residual, gamma, gate, up, down, epsilon, y, total], 7)

    normed, summed = add_norm(isa, x, residual, gamma)
    activated, expected = empty((tokens, INNER), dtype), empty((tokens, HIDDEN), dtype)
    isa.call("gate_up_swiglu", normed, gate, up, activated)
    isa.call("linear", activated, 1, [down], None, expected)
    assert not np.isnan(y.wide()).any()
    np.testing.assert_array_equal(y.array, expected.array)
    np.testing.assert_array_equal(total.array, summed.array)


def test_errors_name_the_operation(library: Native, rng: np.random.Generator) -> None:
    given = attention(rng, "float32")
    y, total = (empty((TOKENS, HIDDEN), "float32") for _ in range(2))
    arguments = given.arguments(y, total)
    faults = {
        0: "attention_sublayer: argument x has",
        3: "attention_sublayer: argument qkv weight has",
        6: "attention_sublayer: argument output weight has",
    }
    for position, message in faults.items():
        call = [*arguments]
        call[position] = tensor(np.zeros(3), "float32")
        with pytest.raises(NativeError, match=re.escape(message)):
            library.call("attention_sublayer", call, given.inputs())
    short = [*arguments]
    short[-3] = tensor([0.5, 1e-6], "float32")
    message = "float_attributes [2] must have at least 3 adjacent elements"
    with pytest.raises(NativeError, match=re.escape(message)):
        library.call("attention_sublayer", short, given.inputs())


@pytest.mark.parametrize(("position", "value"), [(6, 2), (7, 8), (7, -1)])
def test_unknown_attributes_are_refused(
    library: Native, position: int, value: int, rng: np.random.Generator
) -> None:
    given = attention(rng, "float32")
    given.attributes[0].array[position] = value
    outputs = [empty((TOKENS, HIDDEN), "float32") for _ in range(2)]
    message = f"int_attributes[{position}] is {value}; expected "
    with pytest.raises(NativeError, match=re.escape(message)):
        library.call("attention_sublayer", given.arguments(*outputs), given.inputs())


def test_a_slot_out_of_range_writes_nothing(library: Native, rng: np.random.Generator) -> None:
    given = attention(rng, "float32")
    given.block[4].array[0] = 10**6
    before = copies(given.caches)
    y, total = (empty((TOKENS, HIDDEN), "float32") for _ in range(2))
    with pytest.raises(NativeError, match="attention_sublayer: "):
        library.call("attention_sublayer", given.arguments(y, total), given.inputs())
    for found, wanted in zip(given.caches, before, strict=True):
        np.testing.assert_array_equal(found.array, wanted.array)


def test_work_memory_is_recorded(library: Native, rng: np.random.Generator) -> None:
    """What a step needs beside its outputs is part of the measured footprint."""
    shapes = [(9, HIDDEN)] * 2 + [(HIDDEN,)] + [(INNER, HIDDEN)] * 2 + [(HIDDEN, INNER)]
    tensors = [tensor(rng.standard_normal(shape), "float32") for shape in shapes]
    outputs = [empty((9, HIDDEN), "float32") for _ in range(2)]
    library.control.start_footprint()
    library.call("mlp_sublayer", [*tensors, tensor([EPSILON], "float32"), *outputs], 7)
    assert library.control.stop_footprint() == 9 * (HIDDEN + INNER) * 4
