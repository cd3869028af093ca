# SPDX-License-Identifier: Apache-2.0
"""The building blocks of the models, each a MindSpore Cell over Ascend inference primitives."""
