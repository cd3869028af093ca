# SPDX-License-Identifier: Apache-2.0
"""The program that introduces the ranks of a MindSpore cluster to each other (`Cluster` starts it).

It ends when all of them have left, or with the process that started it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main(parent: int) -> None:
    """Serves until all ranks have left, or `parent`, a process id, has ended."""
    _end_with(parent)
    import mindspore
    from mindspore import communication

    mindspore.set_device("CPU")
    # MS_ROLE makes this the scheduler. It holds Python's lock as long as it serves, so nothing of
    # this process but the kernel can end it.
    communication.init()


def _end_with(parent: int) -> None:
    """The kernel means the thread that started this one: the main thread of a rank."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
