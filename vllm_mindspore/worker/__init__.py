# SPDX-License-Identifier: Apache-2.0
"""vLLM's worker side: one process per rank that turns scheduler output into sampled tokens."""
