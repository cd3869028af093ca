# SPDX-License-Identifier: Apache-2.0
"""From checkpoint files to parameters: headers are checked before any weight is read."""
