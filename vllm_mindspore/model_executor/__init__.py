# SPDX-License-Identifier: Apache-2.0
"""Model execution: layers, models, loaders and the backends that join them."""
