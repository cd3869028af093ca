# SPDX-License-Identifier: Apache-2.0
"""One file per scheme: which tensors a linear layer has, and what the kernels make of them."""
