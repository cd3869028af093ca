# SPDX-License-Identifier: Apache-2.0
"""What the hardware is and can do: memory, threads, the kernel library, the MindSpore runtime."""
