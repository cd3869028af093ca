# SPDX-License-Identifier: Apache-2.0
"""`make bench-peers`: this plugin beside vLLM's own CPU build, alternating in one run."""
