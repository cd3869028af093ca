# SPDX-License-Identifier: Apache-2.0
"""The `vllm-mindspore` command: vLLM's own CLI with us active, plus commands of our own."""
