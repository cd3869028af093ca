# SPDX-License-Identifier: Apache-2.0
"""Float checkpoints, as quantization's tests have them."""

from __future__ import annotations

from tests.quantization.ptq.conftest import float_folder

__all__ = ["float_folder"]
