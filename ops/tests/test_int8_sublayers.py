# SPDX-License-Identifier: Apache-2.0
"""Fused layers with quantized projections: bit for bit the operations they are made of."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ops.tests.native import DENSE, Native, NativeError, Tensor, empty, tensor
from ops.tests.test_sublayers import (
    DIM,
    EPSILON,
    HEADS,
    HIDDEN,
    INNER,
    KV_HEADS,
    OUTPUT_BIAS,
    QKV_BIAS,
    TOKENS,
    Attention,
    add_norm,
    attention,
    copies,
)
from vllm_mindspore.device import sparse_weights
from vllm_mindspore.quantization import primitives

SIZES = [HEADS * DIM, KV_HEADS * DIM, KV_HEADS * DIM]
STATIC, PER_TOKEN = "static", "per token"
# Weights alone; of the first some have offsets.
WEIGHT_INT8, WEIGHT_INT4 = "int8 weights", "int4 weights"
# Compressed weights: one for each layer, or one for all layers of an input.
SPARSE, SPARSE_FUSED = "compressed", "compressed together"
KINDS = {STATIC: 0, PER_TOKEN: 2, WEIGHT_INT8: 3, WEIGHT_INT4: 4}  # vmo::ProjectionKind
KINDS |= {SPARSE: 0, SPARSE_FUSED: 0}
# float32 is not for weights alone.
EACH_PAIR = [
    (dtype, scheme) for dtype in DENSE for scheme in (STATIC, PER_TOKEN, SPARSE, SPARSE_FUSED)
]
EACH_PAIR += [(dtype, scheme) for dtype in DENSE[1:] for scheme in (WEIGHT_INT8, WEIGHT_INT4)]


class Projection:
    """One to three quantized weights of one input, as the list holds them, and as operations."""

    def __init__(
        self,
        rng: np.random.Generator,
        scheme: str,
        sizes: list[int],
        inner: int,
        biases: list[Tensor],
    ) -> None:
        def floats(low: float, high: float, size: int) -> Tensor:
            return tensor(rng.uniform(low, high, size), "float32")

        self.scheme, self.inner = scheme, inner
        if scheme == SPARSE_FUSED and len(sizes) > 1:
            joined = np.concatenate([each.array for each in biases]) if biases else None
            biases = [] if joined is None else [Tensor(joined, biases[0].dtype)]
            sizes = [sum(sizes)]
        limit = 8 if scheme == WEIGHT_INT4 else 128
        codes = [rng.integers(-limit, limit, (size, inner), np.int8) for size in sizes]
        if scheme == WEIGHT_INT4:
            codes = [primitives.int4_blocks(each) for each in codes]
        self.weights = [Tensor(each, "int8") for each in codes]
        self.indexes: list[Tensor] = []
        self.streams: list[Tensor] = []
        if scheme in (SPARSE, SPARSE_FUSED):
            coded = [sparse_weights.encode(each) for each in codes]
            self.streams = [Tensor(stream, "int8") for stream, _ in coded]
            self.indexes = [Tensor(index, "int8") for _, index in coded]
            scheme = STATIC
        self.biases = biases
        self.scales = [floats(1e-5, 1e-4, size) for size in sizes]
        sums = [rng.integers(-5000, 5000, size, np.int32) for size in sizes]
        self.quant_biases = [Tensor(each, "int32") for each in sums] if scheme == STATIC else []
        self.offsets = [floats(-9, 9, size) for size in sizes] if scheme == WEIGHT_INT8 else []
        self.input = [floats(0.01, 0.05, inner)] if scheme in (STATIC, PER_TOKEN) else []
        if scheme == STATIC:
            self.input.append(tensor(np.full(inner, 3.0), "float32"))

    def tensors(self) -> list[Tensor]:
        numbers = [KINDS[self.scheme], self.inner, 0, int(bool(self.offsets))]
        numbers += [1] * len(self.indexes)
        descriptor = Tensor(np.array(numbers, np.int32), "int32")
        weights = [*(self.streams or self.weights), *self.indexes]
        parts = [*weights, *self.biases, *self.scales, *self.offsets, *self.quant_biases]
        return [descriptor, *parts, *self.input]

    def run(self, library: Native, x: Tensor) -> Tensor:
        y = empty((len(x.array), sum(len(w.array) for w in self.weights)), x.dtype)
        if not self.input:
            bits = 4 if self.scheme == WEIGHT_INT4 else 8
            flat = self.flat(self.weights, self.scales, self.offsets, self.biases)
            library.call("weight_only_linear", x, bits, 0, len(self.weights), flat, y)
            return y
        codes = Tensor(np.zeros(x.array.shape, np.int8), "int8")
        static = self.scheme != PER_TOKEN
        scales = None if static else empty((len(x.array),), "float32")
        offset = self.input[1] if static else None
        library.call("quantize", x, 0 if static else 2, self.input[0], offset, codes, scales)
        flat = self.flat(self.weights, self.scales, self.quant_biases, self.biases)
        library.call("int8_linear", codes, scales, len(self.weights), flat, y)
        return y

    def flat(self, *parts: list[Tensor]) -> list[Tensor | None]:
        """Those of the first weight, then those of the next."""
        return [part[i] if part else None for i in range(len(self.weights)) for part in parts]


def run_attention(
    isa: Native, given: Attention, qkv: Projection, output: Projection, caches: list[Tensor]
) -> tuple[Tensor, Tensor]:
    normed, summed = add_norm(isa, given.x, given.residual, given.gamma)
    integers = Tensor(given.attributes[0].array.copy(), "int32")
    integers.array[6:] = 0
    attended = empty((TOKENS, HEADS * DIM), given.x.dtype)
    block = [qkv.run(isa, normed), *given.block, *caches, integers, given.attributes[1], attended]
    isa.call("attention_block", block, 13)
    return output.run(isa, attended), summed


def run_mlp(
    isa: Native, x: Tensor, residual: Tensor, gamma: Tensor, gate_up: Projection, down: Projection
) -> tuple[Tensor, Tensor]:
    normed, summed = add_norm(isa, x, residual, gamma)
    activated = empty((TOKENS, INNER), x.dtype)
    isa.call("swiglu", gate_up.run(isa, normed), -1, activated)
    return down.run(isa, activated), summed


@pytest.mark.parametrize(("dtype", "scheme"), EACH_PAIR)
def test_attention_equals_its_operations(
    isa: Native, dtype: str, scheme: str, rng: np.random.Generator
) -> None:
    given = attention(rng, dtype, biases=QKV_BIAS | OUTPUT_BIAS)
    qkv = Projection(rng, scheme, SIZES, HIDDEN, given.biases)
    output = Projection(rng, scheme, [HIDDEN], HEADS * DIM, given.output_bias)
    caches = copies(given.caches)
    found = [empty((TOKENS, HIDDEN), dtype) for _ in range(2)]
    call = [given.x, given.residual, given.gamma, *qkv.tensors(), *output.tensors()]
    call += [*given.block, *given.caches, *given.attributes]
    isa.call("attention_sublayer", [*call, *found], len(call))
    y, summed = run_attention(isa, given, qkv, output, caches)
    assert np.isfinite(y.wide()).all()
    np.testing.assert_array_equal(found[0].array, y.array)
    np.testing.assert_array_equal(found[1].array, summed.array)
    np.testing.assert_array_equal(given.caches[0].array, caches[0].array)


@pytest.mark.parametrize(("dtype", "scheme"), EACH_PAIR)
@pytest.mark.parametrize("gate_up_scheme", [STATIC, None])
def test_mlp_equals_its_operations(
    isa: Native, dtype: str, scheme: str, gate_up_scheme: str | None, rng: np.random.Generator
) -> None:
    """Both projections alike, and a static one in front of another."""
    shapes = [(TOKENS, HIDDEN), (TOKENS, HIDDEN), (HIDDEN,)]
    x, residual, gamma = (tensor(rng.standard_normal(s), dtype) for s in shapes)
    gate_up = Projection(rng, gate_up_scheme or scheme, [INNER, INNER], HIDDEN, [])
    down = Projection(rng, scheme, [HIDDEN], INNER, [])
    found = [empty((TOKENS, HIDDEN), dtype) for _ in range(2)]
    epsilon = tensor([EPSILON], "float32")
    call = [x, residual, gamma, *gate_up.tensors(), *down.tensors(), epsilon]
    isa.call("mlp_sublayer", [*call, *found], len(call))
    y, summed = run_mlp(isa, x, residual, gamma, gate_up, down)
    assert np.isfinite(y.wide()).all()
    np.testing.assert_array_equal(found[0].array, y.array)
    np.testing.assert_array_equal(found[1].array, summed.array)


@pytest.mark.parametrize("dtype", DENSE)
def test_a_decoder_of_mixed_layers(isa: Native, dtype: str, rng: np.random.Generator) -> None:
    """A float layer and one of each kind: each takes its own number of tensors."""
    shared = attention(rng, dtype)
    weights, caches = [], []
    layers = []
    others = () if dtype == "float32" else (WEIGHT_INT8, WEIGHT_INT4)
    for scheme in (None, STATIC, PER_TOKEN, *others):
        given = attention(rng, dtype)
        given.block[2:], given.attributes = shared.block[2:], shared.attributes
        gamma = tensor(rng.standard_normal(HIDDEN), dtype)
        shapes = [(INNER, HIDDEN), (INNER, HIDDEN), (HIDDEN, INNER)]
        floats = [tensor(rng.standard_normal(s) / 4, dtype) for s in shapes]
        parts = (
            Projection(rng, scheme or STATIC, SIZES, HIDDEN, []),
            Projection(rng, scheme or STATIC, [HIDDEN], HEADS * DIM, []),
            Projection(rng, scheme or STATIC, [INNER, INNER], HIDDEN, []),
            Projection(rng, scheme or STATIC, [HIDDEN], INNER, []),
        )
        lists = [part.tensors() for part in parts]
        if scheme is None:
            lists = [given.weights, [given.output], floats[:2], floats[2:]]
        weights += [given.gamma, *lists[0], *lists[1], *given.block[:2], gamma]
        weights += [*lists[2], *lists[3]]
        caches.append(copies(given.caches))
        layers.append((given, scheme, parts, gamma, floats))
    found = [empty((TOKENS, HIDDEN), dtype) for _ in range(2)]
    call = [shared.x, *shared.block[2:], *shared.attributes, *weights]
    call += [*(pair[0] for pair in caches), *(pair[1] for pair in caches)]
    isa.call("decoder_layers", [*call, *found], len(call))

    x, residual = shared.x, None
    for given, scheme, parts, gamma, floats in layers:
        given.x, given.residual = x, residual or x
        if scheme is None:
            given.attributes = copies(shared.attributes)
            given.attributes[0].array[6] = 1
            first = [empty((TOKENS, HIDDEN), dtype) for _ in range(2)]
            isa.call("attention_sublayer", given.arguments(*first), given.inputs())
            x, residual = (empty((TOKENS, HIDDEN), dtype) for _ in range(2))
            mlp = [*first, gamma, *floats, tensor([EPSILON], "float32"), x, residual]
            isa.call("mlp_sublayer", mlp, 7)
            continue
        qkv, output, gate_up, down = parts
        middle = run_attention(isa, given, qkv, output, given.caches)
        x, residual = run_mlp(isa, *middle, gamma, gate_up, down)
    assert residual is not None
    assert np.isfinite(found[0].wide()).all()
    np.testing.assert_array_equal(found[0].array, x.array)
    np.testing.assert_array_equal(found[1].array, residual.array)


def mlp_call(rng: np.random.Generator) -> list[Tensor]:
    """What mlp_sublayer takes in float32 with a static and a per-token projection."""
    shapes = [(TOKENS, HIDDEN), (TOKENS, HIDDEN), (HIDDEN,)]
    head = [tensor(rng.standard_normal(s), "float32") for s in shapes]
    gate_up = Projection(rng, STATIC, [INNER, INNER], HIDDEN, []).tensors()
    down = Projection(rng, PER_TOKEN, [HIDDEN], INNER, []).tensors()
    return [*head, *gate_up, *down, tensor([EPSILON], "float32")]


def test_lists_that_end_early_are_refused(library: Native, rng: np.random.Generator) -> None:
    call = mlp_call(rng)
    outputs = [empty((TOKENS, HIDDEN), "float32") for _ in range(2)]
    for count in range(len(call)):
        with pytest.raises(NativeError, match=r"mlp_sublayer: "):
            library.call("mlp_sublayer", [*call[:count], *outputs], count)
    with pytest.raises(NativeError, match=re.escape("got 1 tensors too many")):
        library.call("mlp_sublayer", [*call, call[-1], *outputs], len(call) + 1)


@pytest.mark.parametrize(
    ("descriptor", "message"),
    [
        ([9, HIDDEN, 0, 0], "unknown kind 9"),
        ([-1, HIDDEN, 0, 0], "unknown kind -1"),
        ([0, 0, 0, 0], "has 0 inputs; expected at least 1"),
        ([0, HIDDEN + 1, 0, 0], f"shape [{INNER}, {HIDDEN}]; expected [*, {HIDDEN + 1}]"),
        ([4, HIDDEN, 0, 0], f"shape [{INNER}, {HIDDEN}]; expected [*, 32]"),
        ([0, HIDDEN, 64, 0], "of kind 0 has groups of 64 and offsets 0"),
        ([3, HIDDEN, -64, 0], "of kind 3 has groups of -64 and offsets 0"),
        ([3, HIDDEN, 0, 2], "of kind 3 has groups of 0 and offsets 2"),
        ([0, HIDDEN], "argument descriptor has shape [2]; expected [4]"),
        ([0, HIDDEN, 0, 0, 2], "the unknown coding 2 of weights; expected 1 (tile-bitmap)"),
        ([0, HIDDEN, 0, 0, 1, 1, 1], "has 3 compressed weights; expected 1 to 2"),
        ([3, HIDDEN, 0, 0, 1], "a projection of kind 3 has compressed weights"),
        ([0, HIDDEN, 0, 0, 1], f"shape [{INNER}, {HIDDEN}]; expected 1 dimensions"),
    ],
)
def test_descriptors_that_do_not_fit_are_refused(
    library: Native, descriptor: list[int], message: str, rng: np.random.Generator
) -> None:
    call = mlp_call(rng)
    call[3] = Tensor(np.array(descriptor, np.int32), "int32")
    outputs = [empty((TOKENS, HIDDEN), "float32") for _ in range(2)]
    with pytest.raises(NativeError, match=re.escape(message)):
        library.call("mlp_sublayer", [*call, *outputs], len(call))


def test_rows_that_blocks_would_hide_are_refused(library: Native, rng: np.random.Generator) -> None:
    """int4 weights of 52 and of 60 inputs have as many bytes."""
    call = [tensor(rng.standard_normal(s), "bfloat16") for s in ((2, HIDDEN), (2, HIDDEN), HIDDEN)]
    call += Projection(rng, WEIGHT_INT4, [INNER, INNER], HIDDEN, []).tensors()
    call += Projection(rng, WEIGHT_INT4, [HIDDEN], INNER, []).tensors()
    call[3].array[1] = 60
    outputs = [empty((2, HIDDEN), "bfloat16") for _ in range(2)]
    message = f"x has shape [2, {HIDDEN}]; expected rows of 60 elements"
    with pytest.raises(NativeError, match=re.escape(message)):
        library.call("mlp_sublayer", [*call, tensor([EPSILON], "float32"), *outputs], len(call) + 1)


@pytest.mark.parametrize("scheme", [WEIGHT_INT8, WEIGHT_INT4])
def test_weights_alone_take_no_memory_for_codes(
    library: Native, scheme: str, rng: np.random.Generator
) -> None:
    shapes = [(TOKENS, HIDDEN), (TOKENS, HIDDEN), (HIDDEN,)]
    call = [tensor(rng.standard_normal(s), "bfloat16") for s in shapes]
    call += Projection(rng, scheme, [INNER, INNER], HIDDEN, []).tensors()
    call += Projection(rng, scheme, [HIDDEN], INNER, []).tensors()
    call.append(tensor([EPSILON], "float32"))
    outputs = [empty((TOKENS, HIDDEN), "bfloat16") for _ in range(2)]
    library.control.start_footprint()
    library.call("mlp_sublayer", [*call, *outputs], len(call))
    assert library.control.stop_footprint() == TOKENS * 2 * (HIDDEN + INNER + 2 * INNER)


def test_compressed_halves_must_be_equal(library: Native, rng: np.random.Generator) -> None:
    """One weight of an odd number of outputs, two of different numbers."""
    for scheme, sizes in ((SPARSE_FUSED, [INNER, INNER + 1]), (SPARSE, [INNER + 2, INNER - 2])):
        call = [tensor(rng.standard_normal(s), "float32") for s in ((2, HIDDEN), (2, HIDDEN))]
        call.append(tensor(rng.standard_normal(HIDDEN), "float32"))
        call += Projection(rng, scheme, sizes, HIDDEN, []).tensors()
        call += Projection(rng, SPARSE, [HIDDEN], INNER, []).tensors()
        call.append(tensor([EPSILON], "float32"))
        outputs = [empty((2, HIDDEN), "float32") for _ in range(2)]
        message = f"gate and up have {sum(sizes)} outputs together; expected as many of each"
        with pytest.raises(NativeError, match=message):
            library.call("mlp_sublayer", [*call, *outputs], len(call))


def test_compressed_weights_take_the_same_work_memory(
    library: Native, rng: np.random.Generator
) -> None:
    taken = []
    for scheme in (STATIC, SPARSE, SPARSE_FUSED):
        call = [tensor(rng.standard_normal(s), "float32") for s in ((TOKENS, HIDDEN),) * 2]
        call.append(tensor(rng.standard_normal(HIDDEN), "float32"))
        call += Projection(rng, scheme, [INNER, INNER], HIDDEN, []).tensors()
        call += Projection(rng, scheme, [HIDDEN], INNER, []).tensors()
        call.append(tensor([EPSILON], "float32"))
        outputs = [empty((TOKENS, HIDDEN), "float32") for _ in range(2)]
        library.control.start_footprint()
        library.call("mlp_sublayer", [*call, *outputs], len(call))
        taken.append(library.control.stop_footprint())
    assert taken[0] == taken[1] == taken[2] > 0


def test_work_memory_is_recorded(library: Native, rng: np.random.Generator) -> None:
    call = mlp_call(rng)
    outputs = [empty((TOKENS, HIDDEN), "float32") for _ in range(2)]
    library.control.start_footprint()
    library.call("mlp_sublayer", [*call, *outputs], len(call))
    floats, codes = HIDDEN + INNER + 2 * INNER + 1, max(HIDDEN, INNER)
    assert library.control.stop_footprint() == TOKENS * (4 * floats + codes)
