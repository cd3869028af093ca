# SPDX-License-Identifier: Apache-2.0
"""Tensors cross between torch, numpy and MindSpore with their bits, and without a copy."""

from __future__ import annotations

import gc

import mindspore as ms
import numpy as np
import pytest
import torch

from vllm_mindspore import bridge

pytestmark = pytest.mark.usefixtures("mindspore_runtime")

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
INTEGERS = (torch.int8, torch.int32, torch.int64)
each_dtype = pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=str)


def values(dtype: torch.dtype) -> torch.Tensor:
    """[3, 5], different in every element and exact in every dtype."""
    return torch.arange(-7, 8).reshape(3, 5).to(dtype)


class Product(ms.nn.Cell):
    """x . weight^T"""

    def __init__(self, weight: ms.Parameter) -> None:
        super().__init__()
        self.weight = weight
        self.matmul = ms.ops.MatMul(transpose_b=True)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        """x [T, 8] -> [T, 4]."""
        return self.matmul(x, self.weight)


@each_dtype
def test_torch_to_mindspore_and_back_shares_memory(dtype: torch.dtype) -> None:
    original = values(dtype)
    tensor = bridge.from_torch(original)
    assert tensor.dtype == bridge.to_mindspore_dtype(dtype)
    assert tensor.data_ptr() == original.data_ptr()
    back = bridge.to_torch(tensor)
    assert back.data_ptr() == original.data_ptr()
    assert back.dtype == dtype
    original[1, 2] = 42
    assert torch.equal(back, original)


@each_dtype
def test_results_are_copied_to_the_host_with_their_bits(dtype: torch.dtype) -> None:
    original = values(dtype)
    found = bridge.copied_to_torch(bridge.from_torch(original))
    assert found.dtype == dtype
    assert torch.equal(found, original)
    original[1, 2] = 42
    assert found[1, 2] != 42


@each_dtype
def test_zeros_are_memory_of_mindspores_own(dtype: torch.dtype) -> None:
    found = bridge.zeros_like(torch.empty((3, 5), dtype=dtype, device="meta"))
    assert (found.shape, found.dtype) == ((3, 5), bridge.to_mindspore_dtype(dtype))
    assert not bridge.copied_to_torch(found).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int32], ids=str)
def test_mindspore_sees_the_values(dtype: torch.dtype) -> None:
    original = values(dtype)
    np.testing.assert_array_equal(bridge.from_torch(original).asnumpy(), original.numpy())


def test_bfloat16_keeps_its_bits() -> None:
    original = torch.tensor([1.5, -2.25, 3e38, float("inf")], dtype=torch.bfloat16)
    bits = bridge.from_torch(original).view(ms.int16).asnumpy()
    np.testing.assert_array_equal(bits, original.view(torch.int16).numpy())


def test_an_unknown_dtype_names_the_choices() -> None:
    with pytest.raises(ValueError, match=r"torch\.complex64 has no .* torch\.bfloat16, .*int64"):
        bridge.to_mindspore_dtype(torch.complex64)


def test_a_strided_tensor_arrives_in_order() -> None:
    original = values(torch.float32).T
    np.testing.assert_array_equal(bridge.from_torch(original).asnumpy(), original.numpy())


def test_memory_outlives_its_torch_tensor() -> None:
    tensor = bridge.from_torch(torch.full((1 << 16,), 3.0))
    gc.collect()
    others = [torch.zeros(1 << 16) for _ in range(8)]
    assert (tensor.asnumpy() == 3.0).all()
    assert len(others) == 8


def test_numpy_arrays_are_shared() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    tensor = bridge.from_numpy(array)
    assert tensor.data_ptr() == array.ctypes.data
    array[1, 1] = 42
    assert tensor.asnumpy()[1, 1] == 42


def test_to_torch_waits_for_the_result() -> None:
    x = torch.ones(1 << 20)
    doubled = bridge.from_torch(x)
    for _ in range(10):
        doubled = doubled + doubled
    assert bool((bridge.to_torch(doubled) == 1024).all())


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_parameters_share_memory_and_are_frozen(dtype: torch.dtype) -> None:
    weight = values(dtype)
    parameter = bridge.parameter("layer.weight", weight)
    assert isinstance(parameter, ms.Parameter)
    assert parameter.name == "layer.weight"
    assert not parameter.requires_grad
    assert parameter.data_ptr() == weight.data_ptr()
    assert torch.equal(bridge.to_torch(parameter), weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_graphs_read_the_memory_of_a_parameter(dtype: torch.dtype) -> None:
    """In every call: weights are not held twice."""
    weight = torch.ones(4, 8, dtype=dtype)
    product = Product(bridge.parameter("layer.weight", weight))
    product.set_inputs(ms.Tensor(shape=[None, 8], dtype=bridge.to_mindspore_dtype(dtype)))
    x = torch.ones(3, 8, dtype=dtype)
    for value in (1, 2, 3):
        weight.fill_(value)
        found = bridge.to_torch(product(bridge.from_torch(x)))
        assert torch.equal(found, torch.full((3, 4), 8 * value, dtype=dtype))


def test_a_parameter_gives_the_memory_that_graphs_read() -> None:
    """Also bfloat16, which MindSpore moves into memory of its own in the first call."""
    product = Product(bridge.parameter("layer.weight", torch.ones(4, 8, dtype=torch.bfloat16)))
    product.set_inputs(ms.Tensor(shape=[None, 8], dtype=ms.bfloat16))
    x = torch.ones(3, 8, dtype=torch.bfloat16)
    for value in (1, 2, 3):
        bridge.to_torch(product.weight).fill_(value)
        found = bridge.to_torch(product(bridge.from_torch(x)))
        assert torch.equal(found, torch.full((3, 4), 8 * value, dtype=torch.bfloat16))


def test_constants_convert_to_the_dtype_or_keep_theirs() -> None:
    array = np.array([0.1, -2.0, 3.0], np.float32)
    kept = bridge.constant("table", array)
    assert kept.data_ptr() == array.ctypes.data
    assert kept.dtype == ms.float32
    converted = bridge.constant("table", array, torch.bfloat16)
    assert converted.dtype == ms.bfloat16
    expected = torch.tensor([0.1, -2.0, 3.0]).to(torch.bfloat16)
    assert torch.equal(bridge.to_torch(converted), expected)


def test_bits_keep_bfloat16_in_place() -> None:
    """int16 of the same bits over the same memory; other dtypes as they are."""
    weight = values(torch.bfloat16)
    parameter = bridge.bits_parameter("layer.weight", weight)
    assert parameter.dtype == ms.int16
    assert parameter.data_ptr() == weight.data_ptr()
    assert torch.equal(torch.from_numpy(parameter.asnumpy()).view(torch.bfloat16), weight)
    plain = values(torch.float16)
    assert bridge.bits_parameter("layer.weight", plain).dtype == ms.float16


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_bits_of_a_tensor_share_its_memory(dtype: torch.dtype) -> None:
    original = values(dtype)
    bits = bridge.bits_from_torch(original)
    assert bits.dtype == bridge.bits_dtype(dtype)
    assert bits.data_ptr() == original.data_ptr()
