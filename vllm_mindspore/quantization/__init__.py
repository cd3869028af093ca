# SPDX-License-Identifier: Apache-2.0
"""Quantized checkpoints: the names users ask for."""
