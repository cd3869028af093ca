# SPDX-License-Identifier: Apache-2.0
"""Post-training quantization: from a float model to a checkpoint that loads here."""
