# SPDX-License-Identifier: Apache-2.0
"""`python -m docs.matrix` prints docs/models_and_features.md."""

from __future__ import annotations

import sys

from docs.matrix.page import markdown

sys.stdout.write(markdown())
