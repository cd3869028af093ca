# SPDX-License-Identifier: Apache-2.0
"""What runs a model: one small protocol, one implementation per VLLM_MS_MODEL_BACKEND value."""
