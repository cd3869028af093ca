# SPDX-License-Identifier: Apache-2.0
"""Folders of W8A8, W8A8S and W8A8SC made of one another: `vllm-mindspore convert`."""
