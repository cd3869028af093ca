# SPDX-License-Identifier: Apache-2.0
"""The error of every evaluation that cannot be done as asked."""

from __future__ import annotations


class EvaluationError(ValueError):
    """Bad data, contradicting options, or a server that does not answer; says what to do."""
