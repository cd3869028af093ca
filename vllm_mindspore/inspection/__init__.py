# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint folder is, without loading it: `vllm-mindspore inspect`."""
