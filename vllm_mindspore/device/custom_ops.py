# SPDX-License-Identifier: Apache-2.0
"""MindSpore operators for the kernels of our library that no builtin primitive names."""

from __future__ import annotations

from mindspore import ops
from mindspore.ops import CustomRegOp, DataType

from vllm_mindspore.device.kernel_library import library_path


def custom_op(name: str, num_inputs: int, num_outputs: int = 1) -> ops.Custom:
    """The operator that runs C function `name` on `num_inputs` tensors.

    Output shapes and dtypes come from the function's C++ inference in the same library, so the
    operator works in graphs with dynamic shapes. Inputs may be written in place.

    Inputs must own their memory from its start: in a graph MindSpore hands a Custom kernel the base
    pointer of a view (mint.split, narrow, transpose) without its strides and offset, and
    `.contiguous()` does not help there.
    """
    # MindSpore knows one number of inputs per operator name and process.
    register = CustomRegOp(f"{name}_{num_inputs}")
    for index in range(num_inputs):
        register = register.input(index, f"x{index}", "required")
    for index in range(num_outputs):
        register = register.output(index, f"y{index}", "required")
    formats = [DataType.None_None] * (num_inputs + num_outputs)
    info = register.dtype_format(*formats).target("CPU").get_op_info()
    return ops.Custom(f"{library_path()}:{name}", None, None, func_type="aot", reg_info=info)
