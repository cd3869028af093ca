# SPDX-License-Identifier: Apache-2.0
"""Reproducible speed measurements; their results are in docs/performance.md."""
