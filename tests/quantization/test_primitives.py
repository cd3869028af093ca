# SPDX-License-Identifier: Apache-2.0
"""The reference arithmetic: against exact rationals, torch, and files that Golden Stick wrote."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from vllm_mindspore.quantization import primitives
from vllm_mindspore.quantization.primitives import ActivationScale

WRITTEN = Path(__file__).parents[1] / "fixtures" / "golden_stick_1.4.1"
LAYER = "model.layers.{}.{}."
STATIC = [f"self_attn.{name}_proj" for name in "qkvo"] + ["mlp.gate_proj", "mlp.up_proj"]
ALL = [*STATIC, "mlp.down_proj"]
FLOATS = st.floats(-1e4, 1e4, width=32)


def written(scheme: str, layer: int, name: str) -> dict[str, np.ndarray]:
    """The tensors of one linear layer, by their last names."""
    prefix = LAYER.format(layer, name)
    tensors = load_file(WRITTEN / scheme / "quant-model-00001-of-00001.safetensors")
    return {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}


def test_halves_round_to_even_and_codes_stay_in_range() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.5, 500, -500, np.inf, -np.inf, np.nan])
    expected = [0, 2, 2, 0, -2, 126, 127, 127, -128, 127, -128, 0]
    assert primitives.quantize(x, 1.0).tolist() == expected
    assert primitives.quantize_reciprocal(x, 1.0, 0).tolist() == expected


def test_the_offset_is_added_before_rounding() -> None:
    assert primitives.quantize(np.array([0.5, 1.5]), 1.0, 1).tolist() == [2, 2]


def test_static_scales_broadcast_over_channels() -> None:
    x = np.array([[1.0, 10.0], [2.0, 20.0]], np.float32)
    scale, offset = np.array([1.0, 10.0], np.float32), np.array([0, 5], np.int8)
    assert primitives.quantize(x, scale, offset).tolist() == [[1, 6], [2, 7]]


def test_codes_are_restored_by_channel() -> None:
    codes = np.array([[-128, 7], [127, 5]], np.int8)
    scale, offset = np.array([0.5, 3.0], np.float32), np.array([2.0, 5.0], np.float32)
    restored = primitives.restore(codes, scale, offset)
    assert restored.dtype == np.float32
    assert restored.tolist() == [[-65.0, 6.0], [62.5, 0.0]]
    assert (primitives.quantize(restored, scale, offset) == codes).all()


@given(FLOATS, FLOATS, st.booleans())
def test_activation_scale_covers_its_range(a: float, b: float, with_zero: bool) -> None:
    low, high = min(a, b), max(a, b)
    found = primitives.activation_scale(low, high, with_zero=with_zero)
    if with_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        assert found == ActivationScale(1.0, 0)
        return
    assert Fraction(found.scale) * 255 == pytest.approx(Fraction(high) - Fraction(low), rel=1e-12)
    for end, code in ((low, -128), (high, 127)):
        assert end / found.scale + found.offset == pytest.approx(code, abs=0.5 + 1e-6)
    if with_zero:
        assert -128 <= found.offset <= 127


@pytest.mark.parametrize(("low", "high"), [(1, 0), (np.nan, 1), (0, np.inf)])
def test_a_range_that_is_none_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match=f"low={low}"):
        primitives.activation_scale(low, high, with_zero=True)


def test_tokens_have_their_own_scales(rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 40)).astype(np.float32) * np.array([[1], [100], [1e-3], [0], [7]])
    smooth = rng.uniform(0.5, 2, 40).astype(np.float32)
    codes, scales = primitives.quantize_per_token(x, smooth)
    assert (np.abs(codes).max(axis=1) == [127, 127, 127, 0, 127]).all()
    wanted = x.astype(np.float32) * smooth
    assert (np.abs(codes * scales[:, None] - wanted) <= scales[:, None] * 0.5001).all()
    assert scales[3] == 0


def test_sums_are_exact(rng: np.random.Generator) -> None:
    codes = rng.integers(-128, 128, (7, 333)).astype(np.int8)
    weight = rng.integers(-128, 128, (9, 333)).astype(np.int8)
    exact = codes.astype(np.float64) @ weight.astype(np.float64).T  # below 2^53
    np.testing.assert_array_equal(primitives.accumulate(codes, weight), exact)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_quantized_layer_is_near_the_float_one(dynamic: bool, rng: np.random.Generator) -> None:
    x = rng.standard_normal((6, 96)).astype(np.float32) + 0.4
    weight = rng.standard_normal((20, 96)).astype(np.float32)
    scale = primitives.weight_scale(weight)
    codes_w = primitives.quantize_weight(weight, scale)
    if dynamic:
        codes, tokens = primitives.quantize_per_token(x)
        sums = primitives.accumulate(codes, codes_w)
        found = primitives.dequantize_per_token(sums, scale, tokens)
        step = tokens[:, None]
    else:
        per_tensor = primitives.activation_scale(x.min(), x.max(), with_zero=False)
        codes = primitives.quantize(x, per_tensor.scale, per_tensor.offset)
        bias = primitives.folded_offset(codes_w, per_tensor.offset)
        sums = primitives.accumulate(codes, codes_w)
        found = primitives.dequantize(sums, per_tensor.scale * scale, bias)
        step = np.float32(per_tensor.scale)
    # Half a step per factor, and one of x where the end of its range is clipped.
    limit = step * np.abs(weight).sum(1) + 0.5 * scale * np.abs(x).sum(1)[:, None]
    assert (np.abs(found - x @ weight.T) <= limit + step * scale * 96).all()


def test_a_folded_bias_is_the_layers(rng: np.random.Generator) -> None:
    weight = rng.integers(-128, 128, (8, 30)).astype(np.int8)
    bias, deq_scale = rng.standard_normal(8), rng.uniform(1e-4, 1e-3, 8)
    folded = primitives.folded_bias(weight, 17, bias, deq_scale)
    apart = primitives.folded_offset(weight, 17)
    np.testing.assert_allclose((folded - apart) * deq_scale, bias, atol=deq_scale.max() / 2)


def test_a_bias_beyond_int32_is_refused() -> None:
    with pytest.raises(ValueError, match="exceeds int32"):
        primitives.folded_bias(np.ones((1, 1), np.int8), 0, np.array([1.0]), np.array([1e-12]))


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=20))
def test_deq_scales_survive_their_int64_form(values: list[float]) -> None:
    scale = np.array(values, np.float32)
    encoded = primitives.encode_deq_scale(scale)
    assert (encoded >> 32 == 0).all()
    np.testing.assert_array_equal(primitives.decode_deq_scale(encoded), scale)
    extended = encoded.astype(np.int32).astype(np.int64)  # what other writers store
    np.testing.assert_array_equal(primitives.decode_deq_scale(extended), scale)


def test_int4_codes_survive_packing(rng: np.random.Generator) -> None:
    codes = rng.integers(-8, 8, (6, 11)).astype(np.int8)
    packed = primitives.pack_int4(codes)
    assert packed.shape == (11, 3)
    assert packed[0, 0] & 0xF == codes[0, 0] & 0xF
    assert packed[0, 0] >> 4 == codes[1, 0]
    np.testing.assert_array_equal(primitives.unpack_int4(packed), codes)


def test_what_is_no_int4_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="even number"):
        primitives.pack_int4(np.zeros((3, 2), np.int8))
    with pytest.raises(ValueError, match=r"-8 \.\. 7"):
        primitives.pack_int4(np.full((2, 2), 8, np.int8))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [0, 16])
def test_weights_are_within_half_a_step(bits: int, group: int, rng: np.random.Generator) -> None:
    weight = rng.standard_normal((10, 64))
    steps = 2**bits - 1
    if group:
        scale = primitives.weight_scale(weight.reshape(10, -1, group), steps=steps)
    else:
        scale = primitives.weight_scale(weight, steps=steps)
    codes = primitives.quantize_weight(weight, scale, bits=bits)
    error = np.abs(primitives.dequantize_weight(codes, scale) - weight)
    step = np.repeat(scale, group, axis=1) if group else scale[:, None]
    assert (error <= step * 0.5001).all()
    assert codes.min() == -(2 ** (bits - 1)) or codes.max() == 2 ** (bits - 1) - 1


def test_groups_must_divide_the_row() -> None:
    with pytest.raises(ValueError, match="divides 10"):
        primitives.quantize_weight(np.ones((2, 10)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="4 or 8 bits"):
        primitives.quantize_weight(np.ones((2, 10)), np.ones(2), bits=2)


def test_a_weight_offset_is_added_to_the_codes() -> None:
    codes, scale = np.array([[1, 2]], np.int8), np.array([0.5])
    found = primitives.dequantize_weight(codes, scale, np.array([3]))
    np.testing.assert_array_equal(found, [[2.0, 2.5]])


def test_a_quantized_matrix_agrees_with_torch(rng: np.random.Generator) -> None:
    weight = torch.from_numpy(rng.standard_normal((5, 32)))
    scale = torch.from_numpy(primitives.weight_scale(weight.numpy(), steps=254)).float()
    zeros = torch.zeros(5, dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(weight.float(), scale, zeros, 0, -128, 127)
    codes = primitives.quantize_weight(weight.float().numpy(), scale.numpy())
    found = primitives.dequantize_weight(codes, scale.numpy())
    np.testing.assert_array_equal(found, expected.numpy())


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("name", STATIC)
def test_golden_stick_folds_like_us(layer: int, name: str) -> None:
    tensors = written("none", layer, name)
    scale, offset = tensors["input_scale"][0], tensors["input_offset"][0]
    folded = primitives.folded_offset(tensors["weight"], offset)
    np.testing.assert_array_equal(folded, tensors["quant_bias"])
    np.testing.assert_array_equal(scale * tensors["weight_scale"], tensors["deq_scale"])


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("name", ALL)
def test_golden_stick_packs_like_us(layer: int, name: str) -> None:
    """Its int4 and int8 files hold the same weights, each within half a step."""
    narrow, wide = written("w4", layer, name), written("w8", layer, name)
    codes = primitives.unpack_int4(narrow["weight"])
    np.testing.assert_array_equal(primitives.pack_int4(codes), narrow["weight"])
    scales = [narrow["weight_scale"].T, wide["weight_scale"]]
    weights = [
        primitives.dequantize_weight(codes, scales[0]),
        primitives.dequantize_weight(wide["weight"], scales[1]),
    ]
    step = np.repeat(scales[0], codes.shape[1] // scales[0].shape[1], axis=1)
    assert (np.abs(weights[0] - weights[1]) <= 0.5001 * (step + scales[1][:, None])).all()


@pytest.mark.parametrize("inner", [1, 32, 63, 64, 65, 130])
def test_int4_blocks(inner: int, rng: np.random.Generator) -> None:
    """Element i of 64 is the low half of byte i, element 32 + i the high half."""
    codes = rng.integers(-8, 8, (3, inner), np.int8)
    blocks = primitives.int4_blocks(codes)
    assert blocks.shape == (3, -(-inner // 64) * 32)
    for k in range(inner):
        byte = blocks[:, k // 64 * 32 + k % 32].view(np.uint8)
        nibble = (byte >> 4 if k % 64 >= 32 else byte & 0xF).astype(np.int8)
        np.testing.assert_array_equal(np.where(nibble > 7, nibble - 16, nibble), codes[:, k])
    assert np.count_nonzero(blocks.view(np.uint8)) <= codes.size
    np.testing.assert_array_equal(primitives.int4_codes(blocks, inner), codes)
